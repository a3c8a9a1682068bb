"""Committed recipes against real vLLM with the demo teacher: where builds end, what befalls them.

One server for all; the last test kills it, and starts another model and then the first again in its
place. What the teacher finished is counted by vLLM itself.
"""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from prompts.dataset import read_manifest
from prompts.plan.judging import JUDGES
from prompts.plan.plan import HINT
from prompts.record import Record, Rejected
from service import events, pausing
from service.review import difference
from service.site import Site
from service.tables import State
from tests.workers.conftest import dataset_of, get_job, new_site, register, wait_for
from tests.workers.on_vllm import (
    MODELS,
    Served,
    compared,
    hard_seeds,
    kept_calls,
    kept_file,
    run,
    seed_rows,
    start_worker,
    submitted,
    succeeded,
    taken_over,
)
from tests.workers.test_rescore import rescored, written
from workers.watch import Watch

pytestmark = [
    pytest.mark.servers,
    pytest.mark.vllm,
    pytest.mark.slow,
    pytest.mark.timeout(1200),
]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    one = Served(tmp_path_factory.mktemp("vllm"))
    one.start("teacher")
    yield one
    one.kill()


@pytest.fixture
def on_vllm(tmp_path: Path, served: Served) -> Iterator[Site]:
    site = new_site(tmp_path / "data", min_free_bytes=0, teacher_patience_s=1.0, lease_s=5.0)
    probe = {"ok": True, "revision": "r1", "max_logprobs": 20, "context_tokens": 1024}
    for name in ("demo-teacher", "critic", "stub"):
        url = f"http://127.0.0.1:{served.port}"
        model = str(MODELS / "teacher")
        register(site, url, name=name, served_model="demo-teacher", model=model, probe=probe)
    yield site
    site.sessions.engine.dispose()


def test_target_rows_are_hit_exactly(on_vllm: Site, served: Served) -> None:
    before = served.finished
    changes = ("build.target_rows=20", "build.limit=40", "build.max_in_flight=8")
    job_id = submitted(on_vllm, "build-budget", *changes)
    run(on_vllm, job_id)
    rows = succeeded(on_vllm, job_id)
    places = {seed["id"]: place for place, seed in enumerate(seed_rows(40))}
    accepted = [places[row.id] for row in rows if isinstance(row, Record)]
    skipped = [
        places[row.id] for row in rows if isinstance(row, Rejected) and row.end == "not_needed"
    ]
    assert len(accepted) == get_job(on_vllm, job_id).result["accepted"] == 20
    # The first in input order: nothing before the last of them was left out.
    assert min(skipped) > max(accepted)
    assert served.finished - before == get_job(on_vllm, job_id).result["requests"] < 40


def test_a_bad_recipe_is_stopped_after_sixteen_requests(on_vllm: Site, served: Served) -> None:
    before = served.finished
    job_id = submitted(on_vllm, "build-smoke")
    run(on_vllm, job_id)
    job = get_job(on_vllm, job_id)
    assert (job.state, job.reason) == (State.PAUSED, "paused_smoke")
    assert served.finished - before == 16
    with on_vllm.sessions.reading() as session:
        told = events.since(session, job_id)[-1]
    assert {row["reason"] for row in told.data["rows"]} == {"no_answer"}


def test_an_incremental_version_asks_for_the_new_alone_and_shows_the_diff(
    on_vllm: Site, served: Served
) -> None:
    first = submitted(on_vllm, "build-incremental", "build.limit=10")
    run(on_vllm, first)
    before = served.finished
    second = submitted(on_vllm, "build-incremental", "build.limit=6")
    run(on_vllm, second)
    assert served.finished - before == 6
    counts = [read_manifest(dataset_of(on_vllm, job)).counts for job in (first, second)]
    assert [count.seeds for count in counts] == [10, 16]
    diff = read_manifest(dataset_of(on_vllm, second)).diff
    assert diff is not None
    assert (diff.kept, diff.kept + diff.added) == tuple(count.accepted for count in counts)
    found = difference(on_vllm, "stories@1", "stories@2")
    assert (found.same, found.added, found.removed, found.changed) == (diff.kept, diff.added, 0, 0)
    assert found.added > 0


@pytest.mark.parametrize(
    ("recipe", "changes", "step"),
    [
        ("build-rationalise", ("build.samples=2",), HINT),
        ("build-judged", ("build.checks.2.max_tokens=48",), JUDGES),
    ],
    ids=["hint", "judge"],
)
def test_a_worker_killed_half_way_through_a_step_repeats_no_finished_call(
    on_vllm: Site, served: Served, recipe: str, changes: tuple[str, ...], step: int
) -> None:
    given = {"seeds": kept_file(on_vllm, "hard.jsonl", hard_seeds(40))} if step == HINT else {}
    few = ("build.limit=40", "build.max_in_flight=4")
    job_id = submitted(on_vllm, recipe, *few, *changes, **given)

    worker = start_worker(on_vllm, job_id)

    def half_way() -> bool:
        assert worker.poll() is None, "it ended before it could be killed"
        return kept_calls(on_vllm, job_id)[step] >= 3

    try:
        wait_for(half_way, 300, 0.01)
    finally:
        worker.kill()
        worker.wait()
    kept = kept_calls(on_vllm, job_id)
    wait_for(lambda: not served.running)  # vLLM drops what nobody waits for any more.
    before = served.finished
    watch = Watch(on_vllm.settings.lease_s)
    wait_for(lambda: taken_over(on_vllm, job_id, watch), 300)
    succeeded(on_vllm, job_id)
    asked = get_job(on_vllm, job_id).result["requests"]
    assert 3 <= kept[step] < 40
    assert served.finished - before == asked - kept.total() > 0


def test_vllm_rescores_its_own_completions_to_the_same_signal(on_vllm: Site) -> None:
    first = written(on_vllm, 24, signal={"top_k": 8}, sampling={"max_tokens": 96})
    second = rescored(on_vllm, signal={"top_k": 8})
    assert (get_job(on_vllm, second).state, get_job(on_vllm, second).detail) == ("succeeded", None)
    found = compared(dataset_of(on_vllm, first), dataset_of(on_vllm, second))
    assert found["rows"] >= 20
    assert found["tokens"] >= 500
    assert found["median_nats"] <= 0.02
    assert found["share_same_set"] >= 0.9


def test_a_teacher_that_is_killed_and_one_that_takes_its_place(
    on_vllm: Site, served: Served
) -> None:
    changes = ("build.limit=40", "build.max_in_flight=4", "build.incremental=false")
    kept, swapped = (
        submitted(on_vllm, "build-incremental", *changes, f"build.name={name}")
        for name in ("kept", "swapped")
    )
    threads = [threading.Thread(target=run, args=(on_vllm, job)) for job in (kept, swapped)]
    for thread in threads:
        thread.start()
    wait_for(lambda: all(kept_calls(on_vllm, job).total() >= 4 for job in (kept, swapped)), 120)
    served.kill()
    for thread in threads:
        thread.join()
    paid = {job: kept_calls(on_vllm, job).total() for job in (kept, swapped)}
    for job in (kept, swapped):
        assert get_job(on_vllm, job).reason == "paused_teacher"
        assert 4 <= paid[job] < 40
    run(on_vllm, kept)  # The tick's doorbell finds nobody.
    assert get_job(on_vllm, kept).reason == "paused_teacher"

    served.start("instructor")
    run(on_vllm, swapped)
    found = get_job(on_vllm, swapped)
    assert (found.state, found.reason) == (State.PAUSED, "paused_teacher_changed")
    assert f"is {MODELS / 'instructor'}" in (found.detail or "")
    assert kept_calls(on_vllm, swapped).total() == paid[swapped]  # It wasn't asked.
    served.kill()

    served.start("teacher")
    before = served.finished
    run(on_vllm, kept)  # By itself.
    assert len(succeeded(on_vllm, kept)) == 40
    assert served.finished - before == 40 - paid[kept] + 1  # The one token that woke it.
    run(on_vllm, swapped)  # Not by itself.
    assert get_job(on_vllm, swapped).reason == "paused_teacher_changed"
    pausing.resume(on_vllm, swapped)
    run(on_vllm, swapped)
    assert len(succeeded(on_vllm, swapped)) == 40
    assert get_job(on_vllm, swapped).result["requests"] == 40
