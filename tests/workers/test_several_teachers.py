"""Several teachers in one build, and several builds at one teacher."""

import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from prompts.limits import TeacherShare, teacher_of
from prompts.record import Record
from service.shares import fair_shares
from service.site import Site
from service.tables import Grant, State, Teacher
from tests.workers.conftest import (
    StubTeacher,
    dataset_of,
    fake_teacher,
    get_job,
    register,
    rows_of,
    run_build,
    submit,
    sums,
    wait_for,
)

pytestmark = pytest.mark.slow

BOTH = [{"name": "stub", "weight": 3}, {"name": "second", "weight": 1}]


def run(site: Site, job_id: str) -> None:
    run_build(site, job_id)


@pytest.fixture
def second(tmp_path: Path) -> Iterator[StubTeacher]:
    """Another fake teacher."""
    with fake_teacher(tmp_path / "second.port") as started:
        yield started


def register_both(site: Site, stub: StubTeacher, second: StubTeacher) -> None:
    register(site, stub.url)
    register(site, second.url, name="second", probe={"ok": True, "revision": "r2"})


def test_weights_share_the_rows_out_by_their_ids(
    site: Site, stub: StubTeacher, second: StubTeacher
) -> None:
    register_both(site, stub, second)
    job_id = submit(site, sums(200), teachers=BOTH)
    run(site, job_id)
    shares = tuple(TeacherShare.model_validate(share) for share in BOTH)
    wanted = Counter(teacher_of(shares, row["id"]) for row in sums(200))
    assert stub.stats()["requests"] == wanted["stub"] > second.stats()["requests"] > 25
    for row in rows_of(dataset_of(site, job_id)):
        assert row.teacher == teacher_of(shares, row.id)
        if isinstance(row, Record):
            assert row.teacher_revision == ("r1" if row.teacher == "stub" else "r2")


def test_a_fall_back_is_asked_while_the_first_is_away_and_for_what_it_refuses(
    site: Site, stub: StubTeacher, second: StubTeacher
) -> None:
    register_both(site, stub, second)
    stub.faults(status=400, times=5)
    second.faults(delay_s=0.01)
    fields = {"teachers": BOTH, "teachers_mode": "fallback", "max_in_flight": 8}
    job_id = submit(site, sums(60), **fields)
    run(site, job_id)
    assert get_job(site, job_id).result["reasons"].get("teacher_error") is None
    assert second.stats()["requests"] == 5
    stub.process.kill()
    away = submit(site, sums(90), **fields | {"name": "away"})
    run(site, away)
    assert get_job(site, away).state == State.SUCCEEDED
    assert {row.teacher for row in rows_of(dataset_of(site, away))} == {"second"}


def test_two_builds_share_a_teacher_fairly_and_within_its_limit(
    site: Site, stub: StubTeacher
) -> None:
    register(site, stub.url)
    with site.sessions.writing.begin() as session:
        session.get_one(Teacher, "stub").max_in_flight = 12
    stub.faults(delay_s=1.0)
    # The fake teacher tells the two apart by the first word of their prompts.
    ids = [
        submit(site, sums(300), name=name, template=f"{name} {{{{ question }}}}", chunk_rows=300)
        for name in ("one", "two")
    ]
    threads = [threading.Thread(target=run, args=(site, job_id)) for job_id in ids]
    for thread in threads:
        thread.start()
    # The first takes all of it until it sees that there is another.
    wait_for(lambda: granted(site) == [6, 6])
    stub.faults(delay_s=0.02)
    for thread in threads:
        thread.join()
    assert stub.stats()["most_in_flight"] <= 12
    assert stub.stats()["beginnings"] == {"one": 300, "two": 300}


def granted(site: Site) -> list[int]:
    with site.sessions.reading() as session:
        return list(session.scalars(select(Grant.granted)))


def test_shares_are_max_min_fair() -> None:
    assert fair_shares(12, {"a": 64, "b": 64}) == {"a": 6, "b": 6}
    assert fair_shares(12, {"a": 2, "b": 64, "c": 64}) == {"a": 2, "b": 5, "c": 5}
    assert fair_shares(7, {"a": 64, "b": 64}) == {"a": 4, "b": 3}
    assert fair_shares(1, {"a": 64, "b": 64}) == {"a": 1, "b": 0}
    assert fair_shares(100, {"a": 8, "b": 8}) == {"a": 8, "b": 8}
