"""A job once more: clones with edits, and builds of rejected rows."""

import json
from typing import Any

import httpx
import pytest

from prompts.dataset import assemble, write_chunk
from prompts.plan import TeacherFacts, make_plan
from prompts.record import Call
from prompts.spec import build_spec
from service import jobs
from service.again import Clone, Retry, clone_spec, retry_spec
from service.problems import Problem
from service.site import Site
from service.spec import BuildJob
from service.tables import Artifact, Job, State
from tests.service.given import add_teacher, build, spec

SAID = ("The answer is 0.", "The answer is 9.", "no idea", "The answer is 3.")


def finished(site: Site, seeds: str) -> str:
    """A build of four rows of which row 1 was wrong and row 2 had no answer; its id."""
    add_teacher(site)
    job = jobs.submit(site, spec(kind="build", build=build(seeds, target_rows=2)))
    given = build_spec.validate_python(job.spec["build"])
    plan = make_plan(given, None, TeacherFacts("t"))
    rows = []
    for number, text in enumerate(SAID):
        seed = {"id": f"r{number}", "question": f"{number}?", "answer": str(number)}
        rows.append(plan.next(seed, [Call(row=seed["id"], text=text, finish_reason="stop")]))
    folder = site.settings.data_dir / "made"
    chunk = write_chunk(folder / "chunk.parquet", rows)  # type: ignore[arg-type]
    assemble(folder / "dataset", [chunk.path], recipe={}, seeds=4)
    with site.sessions.writing.begin() as session:
        made = site.store.publish(
            session, "dataset", "dataset", folder / "dataset", summary={}, inputs=[]
        )
        row = session.get_one(Job, job.id)
        row.state, row.result = State.SUCCEEDED, {"dataset": made.id, "reasons": {"no_answer": 1}}
    return job.id


def seeds_of(site: Site, found: Any) -> list[dict[str, Any]]:
    assert isinstance(found, BuildJob)
    with site.sessions.reading() as session:
        path = site.store.path(session.get_one(Artifact, found.build.seeds))
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_clone_is_the_same_but_for_its_edits(site: Site, seeds: str) -> None:
    job_id = finished(site, seeds)
    found = clone_spec(site, job_id, Clone(set={"build.sampling.temperature": 0.7}))
    assert isinstance(found, BuildJob)
    assert (found.build.sampling.temperature, found.build.target_rows) == (0.7, 2)
    for path in ("build.sampling.temprature", "build.limit"):
        with pytest.raises(Problem) as raised:
            clone_spec(site, job_id, Clone(set={path: -1}))
        assert raised.value.faults[0].location == path


def test_rejected_rows_are_asked_again_with_another_spec(site: Site, seeds: str) -> None:
    job_id = finished(site, seeds)
    found = retry_spec(site, job_id, Retry(set={"build.sampling.temperature": 0.7}))
    assert [seed["id"] for seed in seeds_of(site, found)] == ["r1", "r2"]
    assert isinstance(found, BuildJob)
    assert (found.build.name, found.build.target_rows) == ("dataset-retry", None)
    only = retry_spec(site, job_id, Retry(reasons=("no_answer",), build={"teacher": "t"}))
    assert [seed["id"] for seed in seeds_of(site, only)] == ["r2"]
    with pytest.raises(Problem, match="no row was rejected so"):
        retry_spec(site, job_id, Retry(reasons=("refusal",)))


def test_demonstrations_of_a_retry_are_not_the_rejected_rows(site: Site, seeds: str) -> None:
    job_id = finished(site, seeds)
    shown = "{% for d in demonstrations %}{{ d.question }}{{ d.answer }}{% endfor %}{{ question }}"
    few = {"kind": "cot", "teacher": "t", "demonstrations": 2, "template": shown}
    found = retry_spec(site, job_id, Retry(build=few))
    asked = found.model_dump()["build"]
    assert asked["pool"] == seeds != asked["seeds"]
    none = retry_spec(site, job_id, Retry(build=few | {"demonstrations": 0}))
    assert none.model_dump()["build"]["pool"] is None


@pytest.mark.parametrize("kind", ["self_instruct", "magpie"])
def test_rows_that_the_teacher_writes_cannot_be_asked_again(
    site: Site, seeds: str, kind: str
) -> None:
    job_id = finished(site, seeds)
    method = {"kind": "if", "teacher": "t", "method": {"kind": kind}}
    with site.sessions.writing.begin() as session:
        job = session.get_one(Job, job_id)
        given = [] if kind == "magpie" else seeds
        job.spec = job.spec | {"build": method | {"seeds": given, "name": "d"}}
    with pytest.raises(Problem, match="clone the job") as raised:
        retry_spec(site, job_id, Retry())
    assert raised.value.faults[0].location == "build.method"


async def test_clone_and_retry_over_rest(site: Site, api: httpx.AsyncClient, seeds: str) -> None:
    job_id = finished(site, seeds)
    again = await api.post(f"/api/v1/jobs/{job_id}/retry", json={"reasons": ["no_answer"]})
    assert (again.status_code, again.json()["name"]) == (202, "dataset-retry")
    unfinished = await api.post(f"/api/v1/jobs/{again.json()['id']}/retry", json={})
    assert unfinished.status_code == 409
    cloned = await api.post(f"/api/v1/jobs/{job_id}/clone", json={"set": {"build.limit": 3}})
    assert cloned.json()["spec"]["build"]["limit"] == 3
