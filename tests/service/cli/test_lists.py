"""Lists are read to their end, page by page; what leads from one thing to another."""

import json
import re
from pathlib import Path

import pytest

from service import timetable
from service.site import Site
from service.store import ArtifactKind
from service.tables import Job, State, now
from tests.service.cli.conftest import Cli
from tests.service.given import add_file
from tests.service.test_timetable import hourly


def add_artifacts(site: Site, kind: ArtifactKind, folder: Path) -> list[str]:
    """Three artifacts of a kind, two of one name; oldest first."""
    folder.mkdir()
    (folder / "card.md").write_text("x")
    found = []
    for name in ("a", "b", "a"):
        with site.sessions.writing.begin() as session:
            summary = {"job": "job-told"} if kind == "report" else {}
            made = site.store.publish(session, kind, name, folder, summary=summary, inputs=[])
            found.append(made.id)
        folder.mkdir(exist_ok=True)
        (folder / "card.md").write_text("x")
    return found


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (("datasets", "list"), "dataset"),
        (("models", "list"), "model"),
        (("reports",), "report"),
        (("files", "list"), "file"),
    ],
)
def test_artifacts_are_listed_by_name_and_in_pages(
    site: Site, api: str, cli: Cli, tmp_path: Path, words: tuple[str, ...], kind: ArtifactKind
) -> None:
    if kind == "file":
        made = [add_file(site, "{}\n", name) for name in ("a", "b", "a")]
    else:
        made = add_artifacts(site, kind, tmp_path / "made")
    first = cli(*words, "--limit", "2", "--url", api).out
    assert (made[2] in first, made[1] in first, made[0] in first) == (True, True, False)
    cursor = re.search(r"more: --cursor (\S+)", first)
    assert cursor is not None
    last = cli(*words, "--limit", "2", "--cursor", cursor[1], "--url", api).out
    assert (made[0] in last, made[1] in last, "more:" in last) == (True, False, False)
    named = json.loads(cli(*words, "--name", "a", "--url", api, "--json").out)
    assert [each["id"] for each in named["artifacts"]] == [made[2], made[0]]


def test_schedules_are_listed_in_pages(site: Site, api: str, cli: Cli) -> None:
    for number in range(3):
        hourly(site, name=f"s{number}")
    first = cli("schedules", "list", "--limit", "2", "--url", api).out
    assert ("s2" in first, "s0" in first) == (True, False)
    cursor = re.search(r"more: --cursor (\S+)", first)
    assert cursor is not None
    last = cli("schedules", "list", "--cursor", cursor[1], "--url", api).out
    assert ("s0" in last, "more:" in last) == (True, False)


def test_a_run_names_its_schedule(site: Site, api: str, cli: Cli) -> None:
    schedule = hourly(site)
    run = timetable.run_now(site, "s", now())
    assert f"schedule  {schedule.id}" in cli("jobs", "show", str(run.job_id), "--url", api).out


def test_a_report_that_was_drawn_later_is_found_by_the_job_it_tells_of(
    site: Site, api: str, cli: Cli, tmp_path: Path
) -> None:
    with site.sessions.writing.begin() as session:
        told = {"kind": "train", "state": State.SUCCEEDED, "name": "x", "spec": {"kind": "train"}}
        session.add_all([Job(id="job-told", **told), Job(id="job-other", **told)])
    newest = add_artifacts(site, "report", tmp_path / "made")[-1]
    said = cli("report", "job-told", "--url", api, "--json")
    assert (said.code, json.loads(said.out)["id"]) == (0, newest)
    assert cli("report", "job-other", "--url", api).code == 2
