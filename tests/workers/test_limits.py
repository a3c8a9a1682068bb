"""Where builds end: target_rows, budgets and the smoke gate, against the fake teacher."""

import threading
from typing import Any

import pytest

from prompts.dataset import read_manifest
from prompts.record import Record
from service import events, pausing
from service.site import Site
from service.tables import State
from tests.workers.conftest import (
    StubTeacher,
    check_each_once,
    dataset_of,
    get_job,
    register,
    rows_of,
    run_build,
    submit,
    sums,
)

pytestmark = pytest.mark.slow


def run(site: Site, job_id: str, workers: int = 1) -> None:
    """So many workers, each in a thread of its own, until all have nothing left to do."""
    threads = [threading.Thread(target=run_build, args=(site, job_id)) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for _ in range(5):  # Each time that the goal is raised its bell is rung.
        if get_job(site, job_id).state == State.RUNNING:
            run_build(site, job_id)


def accepted_of(rows: list[dict[str, Any]]) -> list[str]:
    """Ids of the sums that the fake teacher gets right, in order."""
    totals = ((row["id"], int(row["answer"])) for row in rows)
    return [row for row, total in totals if total % 7 and total % 11]


def taken(site: Site, job_id: str) -> list[str]:
    found = rows_of(dataset_of(site, job_id))
    return sorted(row.id for row in found if isinstance(row, Record))


def test_two_workers_take_exactly_the_first_rows(site: Site, stub: StubTeacher) -> None:
    register(site, stub.url)
    stub.faults(delay_s=0.02)
    rows = sums(400)
    job_id = submit(site, rows, target_rows=77, max_in_flight=16, chunk_rows=20)
    run(site, job_id, workers=2)
    job = get_job(site, job_id)
    assert (job.state, job.result["accepted"]) == (State.SUCCEEDED, 77)
    assert taken(site, job_id) == accepted_of(rows)[:77]
    check_each_once(dataset_of(site, job_id), 400)
    paid = [row for row in rows_of(dataset_of(site, job_id)) if row.usage.completion_tokens]
    assert len(paid) == stub.stats()["answered"] == job.result["requests"] < 200


def test_duplicates_across_chunks_do_not_count_for_the_target(
    site: Site, stub: StubTeacher
) -> None:
    register(site, stub.url)
    first = sums(40)
    again = [row | {"id": f"s{40 + i:05d}"} for i, row in enumerate(first)]
    rest = [row | {"id": f"s{80 + i:05d}"} for i, row in enumerate(sums(160)[40:])]
    wanted = len(accepted_of(first)) + 9
    job_id = submit(site, first + again + rest, target_rows=wanted, chunk_rows=16)
    run(site, job_id)
    job = get_job(site, job_id)
    assert (job.state, job.result["accepted"]) == (State.SUCCEEDED, wanted)
    assert taken(site, job_id) == sorted(accepted_of(first) + accepted_of(rest)[:9])
    assert stub.stats()["answered"] == job.result["requests"]  # Nothing was asked twice.
    check_each_once(dataset_of(site, job_id), 200)


def test_a_target_beyond_what_the_seeds_give_ends_with_what_there_is(
    site: Site, stub: StubTeacher
) -> None:
    register(site, stub.url)
    job_id = submit(site, sums(60), target_rows=60)
    run(site, job_id)
    assert get_job(site, job_id).result["accepted"] == len(accepted_of(sums(60)))


@pytest.mark.parametrize(
    ("budget", "most"),
    [
        ({"requests": 50}, 50),
        ({"completion_tokens": 400}, 400 // 8 + 16),
        ({"prompt_tokens": 900}, 900 // 15 + 16),
        ({"tokens": 1200}, 1200 // 23 + 16),
        ({"price": 0.9}, 900 // 15 + 16),
    ],
)
def test_a_budget_ends_the_asking_with_two_workers(
    site: Site, stub: StubTeacher, budget: dict[str, float], most: int
) -> None:
    register(site, stub.url, price_prompt=1000.0)
    stub.faults(delay_s=0.02)
    job_id = submit(site, sums(300), budget=budget, max_in_flight=16, chunk_rows=20)
    run(site, job_id, workers=2)
    job = get_job(site, job_id)
    assert job.state == State.SUCCEEDED
    assert job.result["reasons"]["budget"] == job.result["not_needed"] > 100
    assert 0 < stub.stats()["requests"] <= most
    (name, limit), *_ = budget.items()
    spent = job.result["prompt_tokens"] + job.result["completion_tokens"]
    assert (job.result | {"tokens": spent})[name] >= limit
    check_each_once(dataset_of(site, job_id), 300)


@pytest.mark.parametrize("budget", [{"wall_s": 0.5}, {"gpu_s": 1.0}])
def test_a_budget_of_time_ends_the_asking(
    site: Site, stub: StubTeacher, budget: dict[str, float]
) -> None:
    register(site, stub.url, gpus=2)
    stub.faults(delay_s=0.1)
    job_id = submit(site, sums(300), budget=budget, max_in_flight=4)
    run(site, job_id)
    assert get_job(site, job_id).result["reasons"]["budget"] > 150


def test_the_smoke_gate_stops_after_its_rows_and_a_resume_goes_on(
    site: Site, stub: StubTeacher
) -> None:
    register(site, stub.url)
    job_id = submit(site, sums(100), answer_pattern=r"(never said)", smoke={"rows": 16})
    run(site, job_id, workers=2)
    job = get_job(site, job_id)
    assert (job.state, job.reason) == (State.PAUSED, "paused_smoke")
    assert "0 of the first 16 rows" in (job.detail or "")
    assert stub.stats()["requests"] == 16
    with site.sessions.reading() as session:
        told = events.since(session, job_id)[-1]
    assert told.data["state"] == State.PAUSED
    assert [row["id"] for row in told.data["rows"]] == [f"s{i:05d}" for i in range(16)]
    assert {row["reason"] for row in told.data["rows"]} <= {"no_answer", "truncated"}
    run(site, job_id)
    assert stub.stats()["requests"] == 16
    pausing.resume(site, job_id)
    run(site, job_id)
    assert get_job(site, job_id).state == State.SUCCEEDED
    assert stub.stats()["requests"] == 100
    check_each_once(dataset_of(site, job_id), 100)


def test_a_gate_that_is_met_lets_the_rest_through(site: Site, stub: StubTeacher) -> None:
    register(site, stub.url)
    job_id = submit(site, sums(100), smoke={"rows": 7, "min_accepted": 0.3})
    run(site, job_id)
    assert (get_job(site, job_id).state, get_job(site, job_id).smoke) == ("succeeded", "passed")
    assert read_manifest(dataset_of(site, job_id)).counts.seeds == 100
