from typing import Any

import httpx
import pytest

from service import ancestry, jobs
from service.problems import Problem
from service.site import Site
from service.tables import Artifact, Job, State
from tests.service.given import spec


def add(site: Site, kind: str, id: str, made: str, inputs: list[str], **fields: Any) -> str:
    """A job that is done, and what it made."""
    result = {made: f"{made}-{id}"}
    with site.sessions.writing.begin() as session:
        state = {"state": State.SUCCEEDED, "result": result}
        session.add(Job(id=id, kind=kind, name=id, spec=fields or {"kind": kind}, **state))
        session.flush()
        session.add(
            Artifact(
                id=f"{made}-{id}",
                kind=made,
                name=id,
                version=1,
                path=f"{made}/{id}",
                bytes=1,
                sha256="0" * 64,
                summary={},
                inputs=inputs,
                job_id=id,
            )
        )
    return f"{made}-{id}"


@pytest.fixture
def last(site: Site) -> str:
    """The second of two compressions of a student that was trained on a build; its job."""
    dataset = add(site, "build", "b", "dataset", [])
    other = add(site, "build", "other", "dataset", [])
    student = add(site, "train", "t", "model", [dataset, "/models/base"])
    small = add(site, "compress", "c1", "model", [student, other])
    add(site, "compress", "c2", "model", [small, other])
    return "c2"


def names(site: Site, job_id: str) -> list[str]:
    with site.sessions.reading() as session:
        return [job.id for job in ancestry.behind(session, session.get_one(Job, job_id))]


def test_behind_a_job_are_those_that_made_what_it_started_from(site: Site, last: str) -> None:
    assert names(site, last) == ["b", "t", "c2"]
    assert names(site, "t") == ["b", "t"]
    assert names(site, "b") == ["b"]


def test_the_nearest_dataset_of_a_model(site: Site, last: str) -> None:
    with site.sessions.reading() as session:
        assert ancestry.dataset_of(session, "model-t") == "dataset-b"
        assert ancestry.dataset_of(session, "model-c2") == "dataset-other"
        assert ancestry.dataset_of(session, "model-none") is None


async def test_a_report_is_drawn_from_the_page_of_a_compression(
    site: Site, browser: httpx.AsyncClient, last: str
) -> None:
    with site.sessions.writing.begin() as session:
        compress = {"model": "model-c1", "stages": [{"kind": "wanda"}], "dataset": "dataset-b"}
        session.get_one(Job, last).spec = {"kind": "compress", "compress": compress}
    page = (await browser.get(f"/jobs/{last}")).text
    assert "Draw a report" in page
    csrf = page.partition('name="csrf" value="')[2].partition('"')[0]
    made = await browser.post(f"/jobs/{last}/report", data={"csrf": csrf})
    assert made.status_code == 303
    with site.sessions.reading() as session:
        job = session.get_one(Job, made.headers["location"].rpartition("/")[2])
        assert (job.kind, job.spec["job"]) == ("report", last)
    report = add(site, "report", "r", "report", [])
    with site.sessions.writing.begin() as session:
        session.get_one(Artifact, report).summary = {"job": last}
    for place in (f"/jobs/{last}", "/models/model-c2"):
        assert f"/api/v1/reports/{report}/report.html" in (await browser.get(place)).text
    assert "Draw a report" not in (await browser.get(f"/jobs/{last}")).text


def test_a_report_of_what_has_no_models_is_refused(site: Site, last: str) -> None:
    with pytest.raises(Problem, match="no job of a recipe, a training or a compression"):
        jobs.submit(site, spec(kind="report", job="b"))
    assert jobs.submit(site, spec(kind="report", job="t")).kind == "report"
