"""Commands about jobs that are there, and the preview."""

import json
from pathlib import Path

import pytest

from service import pausing
from service.site import Site
from tests.service.cli.conftest import Cli
from tests.service.given import add_teacher
from tests.service.test_again import finished
from tests.service.test_pausing import queued_build

PREVIEW = {
    "kind": "build",
    "build": {
        "kind": "cot",
        "teacher": "t",
        "seeds": [{"question": "1 + 1?", "answer": 2}],
    },
}


@pytest.mark.slow
def test_jobs_pause_resume_and_are_shown(cli: Cli, api: str, site: Site, seeds: str) -> None:
    job_id = queued_build(site, seeds)
    assert "paused" in cli("pause", job_id, "--url", api).out
    assert "paused_by_hand" in cli("jobs", "--state", "paused", "--url", api).out
    rows = [
        {
            "id": "r1",
            "end": "rejected",
            "reason": "no_answer",
            "detail": "",
            "prompt": "What?",
            "said": "That.",
        }
    ]
    with site.sessions.writing.begin() as session:
        pausing.go_on(session, session.get_one(pausing.Job, job_id))
    with site.sessions.writing.begin() as session:
        session.get_one(pausing.Job, job_id).state = "running"
        session.flush()
        pausing.hold(session, job_id, pausing.SMOKE, "few", rows=rows)
    shown = cli("jobs", "show", job_id, "--url", api).out
    assert "paused_smoke" in shown
    assert "What?" in shown
    assert "queued" in cli("resume", job_id, "--url", api).out
    again = cli("resume", job_id, "--url", api)
    assert (again.code, "isn't paused" in again.err) == (2, True)


def test_clone_and_retry(cli: Cli, api: str, site: Site, seeds: str, tmp_path: Path) -> None:
    job_id = finished(site, seeds)
    said = cli("clone", job_id, "--set", "build.limit=3", "--json", "--url", api)
    assert json.loads(said.out)["spec"]["build"]["limit"] == 3
    edited = tmp_path / "edited.yaml"
    edited.write_text("build: {kind: cot, teacher: t, template: 'Again: {{ question }}'}\n")
    words = ("--spec", str(edited), "--reason", "no_answer", "--json", "--url", api)
    found = json.loads(cli("retry", job_id, *words).out)
    assert found["spec"]["build"]["template"] == "Again: {{ question }}"
    wrong = cli("clone", job_id, "--set", "build.limit=0", "--url", api)
    assert (wrong.code, "build.limit" in wrong.err) == (2, True)


def test_a_preview_shows_prompts_and_verdicts(
    cli: Cli, api: str, site: Site, tmp_path: Path
) -> None:
    add_teacher(site)  # Nobody listens there.
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps(PREVIEW))
    said = cli("preview", str(recipe), "-n", "1", "--url", api)
    assert "user: 1 + 1?" in said.out
    assert "unanswered" in said.out
    assert "0 of 1 accepted" in said.out
