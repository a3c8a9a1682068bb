"""Whole builds in this process, against the fake teacher's."""

from prompts.record import Record
from service.site import Site
from service.tables import State
from tests.workers.conftest import (
    LEASE_S,
    StubTeacher,
    check_each_once,
    dataset_of,
    get_job,
    register,
    rows_of,
    submit,
    sums,
)
from workers import build
from workers.lease import Watch


def run(site: Site, job_id: str) -> None:
    build.run(site, job_id, Watch(LEASE_S))


def test_every_row_ends_once_with_its_reason(site: Site, stub: StubTeacher) -> None:
    register(site, stub.url)
    job_id = submit(site, sums(300))
    run(site, job_id)
    job = get_job(site, job_id)
    assert (job.state, job.reason) == (State.SUCCEEDED, None)
    check_each_once(dataset_of(site, job_id), 300)
    assert stub.stats()["requests"] == 300 == job.result["requests"]
    assert job.result["reasons"].keys() == {"wrong_answer", "truncated"}
    for row in rows_of(dataset_of(site, job_id)):
        total = sum(int(word) for word in row.seed.replace("?", " ").split() if word.isdigit())
        assert isinstance(row, Record) == (total % 7 != 0 and total % 11 != 0)
