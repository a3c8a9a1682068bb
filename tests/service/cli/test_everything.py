"""What the API does, the commands do; and how they sit in a shell."""

import json
import os
import re
import shlex
import subprocess
import sys
from functools import partial
from pathlib import Path

import httpx
import pytest

from service import jobs, timetable
from service.cli import options
from service.cli.client import Api
from service.site import Site
from service.tables import Job, State
from tests.service.cli.conftest import Cli
from tests.service.cli.recorded import Recorder, native_routes
from tests.service.dashboard.world import add_dataset, add_model, answered
from tests.service.given import add_file, add_teacher, build, spec
from tests.service.test_timetable import hourly

ELSEWHERE = {
    ("GET", "/reports/{reference}/{path:path}"),  # a page for a browser: `report --open`
    ("GET", "/reports/{reference}/lineage"),  # a report shows its own
    ("GET", "/datasets/{reference}/files/{path:path}"),  # `datasets download` brings them all
    ("GET", "/models/{reference}/files/{path:path}"),
}


COMMANDS = """
run build.yaml --follow
preview build.yaml
jobs
jobs show job-paused
watch job-1
log job-1
pause job-1
resume job-1
retry job-1
clone job-1
cancel job-1
upload rows.jsonl
files list
files download some.jsonl
files delete some.jsonl
datasets list
datasets show d
datasets rows d
datasets rejected d
datasets review d --accept r
datasets diff d@1 d@2
datasets import rows.jsonl
datasets download d --out d
datasets lineage d
models list
models show m
models lineage m
models download m --out m
report r --out r
reports
teachers add t http://127.0.0.1:9 --served-model m
teachers list
teachers show t
teachers probe t
teachers remove t
chat t hello
keys create k --url URL
keys list --url URL
keys show key-1 --url URL
keys limit key-1 --jobs-at-once 2 --url URL
keys revoke key-1 --url URL
schedules create s build.yaml --cron '0 3 * * *'
schedules list
schedules show s
schedules runs s
schedules run s
schedules pause s
schedules resume s
schedules delete s
gc --dry-run
"""
"""One for each thing that the API does."""


def test_every_route_has_a_command(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Every command is run, and every route of the native API, and chat, is asked by one."""
    recorder = Recorder()
    transport = httpx.MockTransport(recorder)
    monkeypatch.setattr(options, "Api", partial(Api, transport=transport))
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text('{"question": "1?"}\n')
    made = {"kind": "build", "build": {"kind": "cot", "teacher": "t", "seeds": "rows.jsonl"}}
    Path("build.yaml").write_text(json.dumps(made))
    ended = {}
    for line in COMMANDS.strip().splitlines():
        words = shlex.split(line.replace("URL", "http://127.0.0.1:9"))
        ended[line] = cli(*words).code
    assert set(ended.values()) <= {0, 1}, ended
    routes = {(method, one.path) for one in native_routes() for method in one.methods}
    assert routes - recorder.asked == ELSEWHERE
    assert ("POST", "/chat/completions") in recorder.asked


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
    job = jobs.submit(site, spec(kind="batch", input=file))
    in_use = cli("files", "delete", file, "--url", api)
    assert (in_use.code, job.id in in_use.err) == (2, True)
    jobs.cancel(site, job.id)
    hourly(site, name="nightly", job={"kind": "batch", "input": file})
    in_use = cli("files", "delete", file, "--url", api)
    assert (in_use.code, "nightly" in in_use.err) == (2, True)
    timetable.remove(site, "nightly")
    assert cli("files", "delete", file, "--url", api).code == 0
    assert file not in cli("files", "list", "--url", api).out
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


def test_a_chat_that_is_refused_says_why(cli: Cli, api: str) -> None:
    said = cli("chat", "nobody", "What is 2 plus 3?", "--url", api)
    assert (said.code, "nobody" in said.err) == (2, True)


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
