"""What the API does, the commands do; and how they sit in a shell."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from fastapi.routing import APIRoute

from service import jobs
from service.routes import datasets, files, models, reports, schedules, teachers
from service.routes import jobs as job_routes
from service.site import Site
from service.tables import Job, State
from tests.service.cli.conftest import Cli
from tests.service.dashboard.world import add_dataset, add_model, answered
from tests.service.given import add_file, add_teacher, build, spec
from tests.service.test_timetable import hourly

CLI = Path(__file__).resolve().parents[3] / "service" / "cli"
ROUTES = (job_routes, files, datasets, models, reports, teachers, schedules)
ELSEWHERE = {
    ("GET", "/reports/{reference}/{path:path}"),  # a page for a browser: `report --open`
    ("GET", "/reports/{reference}/lineage"),  # a report shows its own
    ("GET", "/datasets/{reference}/files/{path:path}"),  # `datasets download` brings them all
    ("GET", "/models/{reference}/files/{path:path}"),
    ("GET", "/reports/{reference}/files/{path:path}"),
}


CALL = re.compile(
    r'(?:\.(get|post|delete)\(\s*f?|"(GET|POST)",\s*f?)?"(/(?:\{[^}]*\}|[^" ?{])*)',
)
"""A path in the commands' code, and the method that it is called by; bare ones are read."""


def test_every_route_has_a_command() -> None:
    """Each route stands in a call of the client: its method, its path with parameters filled in."""
    said = " ".join(path.read_text() for path in CLI.glob("*.py"))
    called = {
        ((call or named or "get").upper(), re.sub(r"\{[^}]*\}", "{}", path))
        for call, named, path in CALL.findall(said)
    }
    # These name the kind: `list_artifacts`, and what datasets and models have in common.
    called |= {
        (method, path.replace("{}", kind, 1))
        for method, path in called
        for kind in ("datasets", "models", "reports")
        if path.startswith("/{}")
    }
    missing = [
        (method, route.path)
        for module in ROUTES
        for route in module.router.routes
        if isinstance(route, APIRoute)
        for method in route.methods
        if (method, route.path) not in ELSEWHERE
        and (method, re.sub(r"\{[^}]*\}", "{}", route.path)) not in called
    ]
    assert missing == []


def test_jobs_are_filtered_and_paged(cli: Cli, api: str, site: Site, seeds: str) -> None:
    add_teacher(site)
    made = [jobs.submit(site, spec(kind="build", build=build(seeds))).id for _ in range(2)]
    jobs.submit(site, spec(kind="serve", model="org/model", name="served"))
    first = cli("jobs", "--kind", "build", "--limit", "1", "--url", api)
    assert made[1] in first.out
    cursor = re.search(r"--cursor (\S+)", first.out)
    assert cursor is not None
    words = ("--kind", "build", "--cursor", cursor[1], "--json", "--url", api)
    second = json.loads(cli("jobs", *words).out)
    assert [job["id"] for job in second["jobs"]] == [made[0]]
    assert json.loads(cli("jobs", "--parent", made[0], "--json", "--url", api).out)["jobs"] == []


def test_a_log_is_shown(cli: Cli, api: str, site: Site) -> None:
    job_id = jobs.submit(site, spec(kind="serve", model="org/model", name="served")).id
    assert "no process" in cli("log", job_id, "--url", api).out
    folder = site.settings.data_dir / "work" / job_id
    folder.mkdir(parents=True)
    (folder / "vllm.log").write_text("loading weights\n")
    assert "==> " in cli("log", job_id, "--url", api).out
    assert "loading" in json.loads(cli("log", job_id, "--json", "--url", api).out)["log"]


@pytest.mark.slow
@pytest.mark.parametrize(("words", "code"), [((), 1), (("--no-exit-status",), 0)])
def test_the_exit_status_is_the_jobs(
    cli: Cli, api: str, site: Site, words: tuple[str, ...], code: int
) -> None:
    job_id = jobs.submit(site, spec(kind="serve", model="org/model", name="served")).id
    with site.sessions.writing.begin() as session:
        epoch = session.get_one(Job, job_id).epoch
        assert jobs.finish(session, job_id, epoch, State.FAILED, reason="made_up")
    said = cli("watch", job_id, *words, "--url", api)
    assert (said.code, "made_up" in said.out) == (code, True)


def test_rows_are_read_searched_and_judged(cli: Cli, api: str, site: Site, tmp_path: Path) -> None:
    dataset = add_dataset(site, tmp_path / "rows", answered(16), "stories")
    assert "Ann has 3 apples" in cli("datasets", "rows", dataset, "--url", api).out
    words = ("--search", "buys 1 more", "--limit", "1", "--json", "--url", api)
    found = json.loads(cli("datasets", "rows", dataset, *words).out)
    assert [row["id"] for row in found["rows"]] == ["story-0001"]
    rejected = cli("datasets", "rejected", dataset, "--reason", "wrong_answer", "--url", api).out
    assert "rejected: wrong_answer" in rejected
    said = cli(
        "datasets", "review", dataset, "--reject", "story-0001", "--note", "no", "--url", api
    )
    assert "stories version 2" in said.out
    by_hand = cli("datasets", "rejected", "stories", "--reason", "by_hand", "--url", api).out
    assert "story-0001" in by_hand
    assert cli("datasets", "review", dataset, "--url", api).code == 2


def test_files_models_and_teachers(
    cli: Cli, api: str, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = add_file(site, '{"question": "1?"}\n', "mine.jsonl")
    assert file in cli("files", "list", "--url", api).out
    assert cli("files", "download", file, "--url", api).code == 0
    assert Path("mine.jsonl").read_text() == '{"question": "1?"}\n'
    assert cli("files", "download", file, "--url", api).code == 2
    model = add_model(site, tmp_path / "m", "student", [], role="student")
    assert cli("models", "download", model, "--out", "here", "--url", api).code == 0
    assert Path("here/config.json").is_file()
    small = add_model(site, tmp_path / "s", "small", [model, "/models/base"], role="stage")
    family = json.loads(cli("models", "lineage", model, "--json", "--url", api).out)
    assert [one["id"] for one in family] == [model, small]
    assert "outside" in cli("models", "lineage", small, "--url", api).out
    add_teacher(site)
    assert "model m" in cli("teachers", "show", "t", "--url", api).out
    assert "no reports" in cli("reports", "--url", api).out


def test_runs_of_a_schedule_are_listed(cli: Cli, api: str, site: Site) -> None:
    hourly(site, name="nightly")
    assert cli("schedules", "run", "nightly", "--url", api).code == 0
    listed = json.loads(cli("schedules", "runs", "nightly", "--json", "--url", api).out)
    assert len(listed["runs"]) == 1
    assert cli("schedules", "runs", "nightly", "--state", "failed", "--url", api).out == ""


def test_status_tells_what_works_and_ends_with_it(cli: Cli, api: str, site: Site) -> None:
    add_teacher(site)
    said = cli("status", "--url", api)
    assert "database  ok" in said.out
    assert "artifacts ok" in said.out
    assert "teacher   t ok" in said.out
    assert said.code == (0 if said.out.startswith("ok") else 1)


@pytest.mark.slow
def test_the_shell_completes_commands_and_options() -> None:
    assert completed("retort data") == ["datasets"]
    assert "--exit-status" in completed("retort run --exit")


def completed(line: str) -> list[str]:
    """What bash would be offered at the end of a line."""
    asked = {
        "_RETORT_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(line.split()) - 1),
    }
    program = "from service.cli.main import main; main()"
    found = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.argv[0] = 'retort'; {program}"],
        env=os.environ | asked,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return found.stdout.split()
