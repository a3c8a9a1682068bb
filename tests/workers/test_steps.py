"""Rows of several steps, in whole builds against the fake teacher's: nothing is asked twice."""

from pathlib import Path
from typing import Any

import pytest

from prompts.record import Record
from service.site import Site
from service.tables import State
from tests.workers.conftest import (
    StubTeacher,
    check_each_once,
    dataset_of,
    dying_disk,
    get_job,
    new_site,
    register,
    rows_of,
    run_build,
    submit,
    sums,
)

pytestmark = pytest.mark.slow

# The stub repeats the last two numbers of what it is asked and their sum: as a judge, too.
RUBRIC = "Is the sum right? Read 2 and 3."
STEPS: dict[str, Any] = {
    "samples": 3,
    "sampling": {"temperature": 1, "seed": 1},
    "rationalise": {"hint": "It is {{ gold }}. Take {{ gold }} plus 0"},
    "checks": [
        {
            "kind": "judge",
            "rubric": RUBRIC,
            "threshold": 1,
            "template": "{{ completion }} {{ rubric }} Score: 2 and 3",
            "structured": False,
        }
    ],
    "max_in_flight": 8,
}


def requests_for(rows: int) -> int:
    """What a build asks: three samples, a hint where the sum is said wrongly (the hinted one is as
    wrong), a judge where it is right and not cut off."""
    sums_ = [i + i % 13 for i in range(rows)]
    hinted = [total for total in sums_ if total % 7 == 0]
    judged = [total for total in sums_ if total % 7 and total % 11]
    return 3 * rows + len(hinted) + len(judged)


def test_samples_hints_and_judges_are_asked_once_each(site: Site, stub: StubTeacher) -> None:
    register(site, stub.url)
    job_id = submit(site, sums(60), **STEPS)
    run_build(site, job_id)
    assert get_job(site, job_id).state == State.SUCCEEDED
    check_each_once(dataset_of(site, job_id), 60)
    assert stub.stats()["answered"] == requests_for(60) == get_job(site, job_id).result["requests"]


def test_a_build_that_dies_between_the_steps_goes_on_where_it_was(
    tmp_path: Path, stub: StubTeacher
) -> None:
    site = new_site(tmp_path / "data")
    register(site, stub.url)
    first = submit(site, sums(60), **STEPS)
    run_build(site, first, dying_disk(12))
    assert (get_job(site, first).state, get_job(site, first).reason) == (State.FAILED, "storage")
    paid = stub.stats()["answered"]
    assert 20 < paid < requests_for(60)
    second = submit(site, sums(60), **STEPS)
    run_build(site, second)
    assert get_job(site, second).state == State.SUCCEEDED
    check_each_once(dataset_of(site, second), 60)
    kept = [row for row in rows_of(dataset_of(site, second)) if isinstance(row, Record)]
    assert all(len(row.judgements) == 1 and row.confidence == 1 for row in kept)
    # What was in flight as the disk broke is asked again, at most one window of it.
    again = stub.stats()["answered"] - requests_for(60)
    assert 0 <= again <= STEPS["max_in_flight"] + 32
    site.sessions.engine.dispose()
