import asyncio
import dataclasses
import json
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from service import batches, jobs
from service.batches import BatchInputError
from service.disk import Written
from service.ids import make_id
from service.site import Site
from service.spec import BatchJob
from service.store import Upload
from service.tables import Artifact, Grant, Job, State, now
from tests.workers.conftest import StubTeacher, get_job, register, wait_for
from workers import batch
from workers.answers import AnswerLog, answers_folder, read_answers
from workers.lease import Lease


def request(number: int, **body: Any) -> dict[str, Any]:
    content = f"What is {number} plus {number % 13}?"
    asked = {"model": "stub", "messages": [{"role": "user", "content": content}]} | body
    return {"custom_id": f"r{number}", "method": "POST", "url": batches.URL, "body": asked}


def file_of(site: Site, rows: list[Any]) -> str:
    path = site.store.root / "incoming" / make_id("file")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with site.sessions.writing.begin() as session:
        return site.store.keep(session, Upload(path, "b.jsonl", Written(1, "0")), {}).id


def submit(site: Site, rows: list[Any], **fields: Any) -> str:
    return jobs.submit(site, BatchJob(kind="batch", input=file_of(site, rows), **fields)).id


def lines_of(site: Site, job_id: str, kind: str) -> list[dict[str, Any]]:
    with site.sessions.reading() as session:
        artifact = session.get_one(Artifact, get_job(site, job_id).result[f"{kind}_file"])
    return [json.loads(line) for line in site.store.path(artifact).read_text().splitlines()]


def test_every_request_is_answered_once_in_order(site: Site, stub: StubTeacher) -> None:
    register(site, stub.url)
    job_id = submit(site, [request(n) for n in range(60)], max_in_flight=16)
    batch.run(site, job_id)
    job = get_job(site, job_id)
    assert (job.state, job.progress["phase"]) == (State.SUCCEEDED, "finalizing")
    assert (job.result["completed"], job.result["failed"]) == (60, 0)
    lines = lines_of(site, job_id, "output")
    assert [line["custom_id"] for line in lines] == [f"r{n}" for n in range(60)]
    assert {line["response"]["status_code"] for line in lines} == {200}
    assert all(line["response"]["body"]["choices"][0]["message"]["content"] for line in lines)
    assert stub.stats()["requests"] == 60


def test_what_an_earlier_worker_was_answered_is_not_asked_again(
    site: Site, stub: StubTeacher
) -> None:
    register(site, stub.url)
    job_id = submit(site, [request(n) for n in range(10)])
    folder = answers_folder(site.store.root, job_id) / "000000"
    folder.mkdir(parents=True)
    answer = {"status_code": 200, "request_id": "q", "body": {}}
    kept = [{"id": "x", "custom_id": f"r{n}", "response": answer, "error": None} for n in (3, 4)]
    (folder / "000001").write_text("".join(json.dumps(line) + "\n" for line in kept))
    batch.run(site, job_id)
    assert stub.stats()["requests"] == 8
    lines = lines_of(site, job_id, "output")
    assert ([line["custom_id"] for line in lines][3], lines[3]["id"]) == ("r3", "x")


@pytest.mark.slow
def test_a_cancelled_batch_keeps_its_answers(site: Site, stub: StubTeacher) -> None:
    register(site, stub.url)
    stub.faults(delay_s=0.3)
    job_id = submit(site, [request(n) for n in range(200)], max_in_flight=4)
    working = threading.Thread(target=batch.run, args=(site, job_id))
    working.start()
    wait_for(lambda: stub.stats()["answered"] >= 4)
    jobs.cancel(site, job_id)
    working.join(60)
    job = get_job(site, job_id)
    assert job.state == State.CANCELLED
    lines = lines_of(site, job_id, "output")
    assert 0 < len(lines) == job.result["completed"] < 200
    assert "error_file" not in job.result


@pytest.mark.slow
def test_a_batch_makes_way_for_a_job_that_waits(site: Site, stub: StubTeacher) -> None:
    register(site, stub.url)
    hasty = dataclasses.replace(site, settings=site.settings.model_copy(update={"yield_s": 0.1}))
    stub.faults(delay_s=0.1)
    first = submit(site, [request(n) for n in range(60)], max_in_flight=2)
    second = submit(site, [request(n) for n in range(100, 103)])
    batch.run(hasty, first)
    waiting = get_job(site, first)
    assert (waiting.state, waiting.owner) == (State.QUEUED, None)
    batch.run(hasty, second)
    assert get_job(site, second).state == State.SUCCEEDED
    batch.run(hasty, first)
    assert get_job(site, first).result["completed"] == 60
    assert stub.stats()["requests"] == 63


@pytest.mark.slow
def test_batches_hold_a_teachers_limit_together(site: Site, stub: StubTeacher) -> None:
    register(site, stub.url, max_in_flight=5)
    stub.faults(delay_s=0.05)
    ids = [submit(site, [request(n) for n in range(at, at + 60)]) for at in (0, 100)]
    working = [threading.Thread(target=batch.run, args=(site, job_id)) for job_id in ids]
    for thread in working:
        thread.start()
    for thread in working:
        thread.join(60)
    assert [get_job(site, job_id).result["completed"] for job_id in ids] == [60, 60]
    assert stub.stats()["most_in_flight"] == 5
    with site.sessions.reading() as session:
        assert session.scalars(select(Grant)).all() == []


@pytest.mark.slow
def test_a_cancelled_batch_does_not_wait_for_a_share(site: Site, stub: StubTeacher) -> None:
    register(site, stub.url, max_in_flight=1)
    with site.sessions.writing.begin() as session:
        held = now() + timedelta(hours=1)
        fields = {"owner": "another", "job_id": "chat-1", "wanted": 1, "granted": 1}
        session.add(Grant(teacher="stub", until=held, **fields))
    job_id = submit(site, [request(1)])
    working = threading.Thread(target=batch.run, args=(site, job_id))
    working.start()
    wait_for(lambda: get_job(site, job_id).progress)
    jobs.cancel(site, job_id)
    working.join(10)
    assert get_job(site, job_id).state == State.CANCELLED
    assert stub.stats()["requests"] == 0


@pytest.mark.slow
def test_what_is_not_answered_within_the_window_expires(site: Site, stub: StubTeacher) -> None:
    register(site, stub.url)
    stub.faults(delay_s=0.4)
    job_id = submit(site, [request(n) for n in range(50)], max_in_flight=2, window_s=3600)
    with site.sessions.writing.begin() as session:
        early = now() - timedelta(hours=2)
        session.execute(update(Job).where(Job.id == job_id).values(created_at=early))
    batch.run(site, job_id)
    job = get_job(site, job_id)
    assert (job.state, job.reason) == (State.SUCCEEDED, "expired")
    late = lines_of(site, job_id, "error")
    assert {line["error"]["code"] for line in late} == {"batch_expired"}
    assert job.result["completed"] + len(late) == 50


def test_a_refused_request_stands_in_the_error_file(site: Site, stub: StubTeacher) -> None:
    register(site, stub.url)
    stub.faults(status=400, times=1)
    job_id = submit(site, [request(1)])
    batch.run(site, job_id)
    assert "output_file" not in get_job(site, job_id).result
    (line,) = lines_of(site, job_id, "error")
    assert line["response"]["status_code"] == 400


def test_an_unusable_file_fails_with_its_lines(site: Site, stub: StubTeacher) -> None:
    register(site, stub.url)
    wrong = [
        request(1),
        request(1),
        request(2) | {"url": "/v1/embeddings"},
        request(3) | {"method": "GET"},
        request(4, model="nobody"),
        request(5, stream=True),
        request(6, messages=[]),
        [],
        {"custom_id": 1},
    ]
    job_id = submit(site, wrong)
    batch.run(site, job_id)
    job = get_job(site, job_id)
    assert (job.state, job.reason) == (State.FAILED, "bad_input")
    assert [(fault["line"], fault["param"]) for fault in job.result["errors"]] == [
        (2, "custom_id"),
        (3, "url"),
        (4, "method"),
        (5, "body.model"),
        (6, "body.stream"),
        (7, "body.messages"),
        (8, None),
        (9, "custom_id"),
    ]
    assert stub.stats()["requests"] == 0


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n\n")
    with pytest.raises(BatchInputError, match="no request"):
        batches.scan(tmp_path / "empty", {"t"})


async def test_a_log_whose_lease_was_lost_says_so(tmp_path: Path) -> None:
    lease = Lease("job-1", None, 2, "me")
    lease.lost.set()
    log = AnswerLog(tmp_path, lease)
    writing = asyncio.create_task(log.run())
    with pytest.raises(Exception, match="job-1"):
        await log.append({"custom_id": "a"})
    writing.cancel()
    assert read_answers(tmp_path) == {}
