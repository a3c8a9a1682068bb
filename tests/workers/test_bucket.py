"""Jobs whose artifacts lie in a bucket, on a real S3 server: hosts with data directories of their
own, and a line to the bucket that breaks."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from prompts.dataset import open_signal, read_manifest
from service import jobs, pausing
from service.settings import Settings
from service.shared import StorageError
from service.site import Site, open_root
from service.spec import BatchJob
from service.tables import Artifact, Event, State
from tests.service.s3 import Line, S3Server, bucket, line, s3_server
from tests.workers.conftest import (
    StubTeacher,
    check_each_once,
    dataset_of,
    get_job,
    new_site,
    register,
    run_build,
    submit,
    sums,
    wait_for,
)
from tests.workers.test_batch import lines_of, request
from tests.workers.test_child import fake, model_directory, put
from tests.workers.test_ledger import entry, lease_of
from tests.workers.test_signal import say
from tests.workers.writing_teacher import writing_teacher
from workers import batch, child
from workers.answers import answers_folder, write_lines
from workers.ledger import LedgerWriter, folder_of, read_entries

__all__ = ["bucket", "line", "s3_server"]

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]

NewHost = Callable[..., Site]


@pytest.fixture
def host(tmp_path: Path, bucket: str) -> Iterator[NewHost]:
    """Makes hosts; database and bucket are one."""
    made: list[Site] = []

    def new(name: str, root: str = bucket) -> Site:
        shared = {"database_url": f"sqlite:///{tmp_path}/retort.db", "artifact_root": root}
        (tmp_path / name).mkdir(exist_ok=True)
        made.append(new_site(tmp_path / name, lease_s=30.0, **shared))
        return made[-1]

    yield new
    for site in made:
        site.sessions.engine.dispose()


def run(site: Site, job_id: str) -> None:
    run_build(site, job_id)


def told(site: Site, job_id: str) -> list[str]:
    with site.sessions.reading() as session:
        query = select(Event.type).where(Event.job_id == job_id).order_by(Event.id)
        return list(session.scalars(query))


def test_a_segment_waits_for_the_bucket_and_is_then_read_elsewhere(
    tmp_path: Path, line: Line, bucket: str
) -> None:
    settings = [Settings(data_dir=tmp_path / name, artifact_root=bucket) for name in "ab"]
    (here, shared), (there, others) = (open_root(each) for each in settings)
    waited: list[OSError] = []

    def mend(error: OSError) -> None:
        waited.append(error)
        line.mend()
        others.pull(folder_of(there, "job", 0))
        assert read_entries(folder_of(there, "job", 0)) == {}

    line.cut()
    writer = LedgerWriter(here, lease_of(), shared.write, mend)
    asyncio.run(writer.append(entry("a")))
    assert len(waited) == 1
    others.pull(folder_of(there, "job", 0))
    assert read_entries(folder_of(there, "job", 0), below=2) == {"a": [entry("a")]}
    assert not any(path.is_file() for path in here.rglob("*"))


def test_a_build_waits_while_the_bucket_is_away_and_asks_for_nothing_twice(
    host: NewHost, stub: StubTeacher, line: Line
) -> None:
    rows, window = 200, 8
    site = host("here")
    register(site, stub.url)
    stub.faults(delay_s=0.02)
    job_id = submit(site, sums(rows), max_in_flight=window)
    thread = threading.Thread(target=run, args=(site, job_id))
    thread.start()
    wait_for(lambda: stub.stats()["answered"] >= 30)
    line.cut()
    wait_for(lambda: "storage_away" in told(site, job_id))
    asked = stub.stats()["requests"]
    assert asked < rows
    line.mend()
    thread.join()
    run(site, job_id)
    job = get_job(site, job_id)
    assert (job.state, job.waiting_for) == (State.SUCCEEDED, None)
    check_each_once(dataset_of(host("there"), job_id), rows)
    assert stub.stats()["requests"] == rows


def test_a_bucket_that_is_not_there_ends_the_job(host: NewHost, stub: StubTeacher) -> None:
    register(host("here"), stub.url)
    job_id = submit(host("there"), sums(10))
    run(host("lost", "s3://no-such-bucket-here"), job_id)
    job = get_job(host("here"), job_id)
    assert (job.state, job.reason) == (State.FAILED, "storage")
    assert "there is no bucket no-such-bucket-here" in (job.detail or "")
    assert stub.stats()["requests"] == 0


def test_a_cancelled_build_is_taken_up_on_another_host(
    host: NewHost, stub: StubTeacher, bucket: str, s3_server: S3Server
) -> None:
    here, there = host("here"), host("there")
    register(here, stub.url)
    stub.faults(delay_s=0.1)
    first = submit(here, sums(100), max_in_flight=8)
    thread = threading.Thread(target=run, args=(here, first))
    thread.start()
    wait_for(lambda: stub.stats()["answered"] > 30)
    jobs.cancel(here, first)
    thread.join()
    asked = stub.stats()["requests"]
    stub.faults(delay_s=0)
    second = submit(there, sums(100), max_in_flight=8)
    run(there, second)
    check_each_once(dataset_of(here, second), 100)
    assert stub.stats()["requests"] - asked <= 100 - 30
    # What the datasets hold now is gone from beside them; a cancelled ledger stays.
    kept = {key.split("/")[1] for key in s3_server.objects(bucket) if key.startswith("ledger/")}
    assert kept == {first}


def test_what_one_host_was_answered_is_cached_for_all(host: NewHost, stub: StubTeacher) -> None:
    here, there = host("here"), host("there")
    register(here, stub.url)
    for site in (here, there):
        job_id = submit(site, sums(20), cache=True)
        run(site, job_id)
        check_each_once(dataset_of(here, job_id), 20)
    assert get_job(here, job_id).result["requests"] == 0
    assert stub.stats()["requests"] == 20


def test_rows_and_their_signal_are_assembled_on_another_host(host: NewHost) -> None:
    here, there = host("here"), host("there")
    with writing_teacher(say) as teacher:
        register(here, teacher.url, probe={"ok": True, "revision": "r1", "max_logprobs": 5})
        job_id = submit(
            here, sums(40), signal={"top_k": 3}, chunk_rows=16, smoke={"rows": 8, "min_accepted": 1}
        )
        run(here, job_id)
        assert get_job(here, job_id).state == State.PAUSED
        pausing.resume(here, job_id)
        run(there, job_id)
    assert get_job(here, job_id).state == State.SUCCEEDED
    dataset = dataset_of(host("third"), job_id)
    assert read_manifest(dataset).counts.accepted == 39
    with open_signal(dataset) as reader:
        assert "s00001" in reader


def test_a_batch_begun_on_one_host_is_finished_on_another(host: NewHost, stub: StubTeacher) -> None:
    here, there = host("here"), host("there")
    register(here, stub.url)
    rows = here.settings.data_dir / "b.jsonl"
    rows.write_text("".join(json.dumps(request(n)) + "\n" for n in range(20)))
    with here.sessions.writing.begin() as session:
        file = here.store.publish(session, "file", "b", rows, summary={}, inputs=[]).id
    job_id = jobs.submit(here, BatchJob(kind="batch", input=file)).id
    answer = {"status_code": 200, "request_id": "q", "body": {}}
    kept = {"id": "x", "custom_id": "r3", "response": answer, "error": None}
    # What a worker of the first host leaves that dies.
    segment = answers_folder(here.store.root, job_id) / "000000" / "000001"
    write_lines(segment, [kept], here.store.shared.write)
    batch.run(there, job_id)
    assert stub.stats()["requests"] == 19
    assert get_job(here, job_id).state == State.SUCCEEDED
    lines = lines_of(host("third"), job_id, "output")
    assert [each["custom_id"] for each in lines] == [f"r{n}" for n in range(20)]
    assert lines[3]["id"] == "x"


def test_a_training_waits_for_the_bucket_and_publishes_into_it(
    host: NewHost, stub: StubTeacher, line: Line
) -> None:
    here, there = host("here"), host("there")
    register(here, stub.url)
    built = submit(here, sums(20))
    run(here, built)
    train = {
        "method": "sequence_level",
        "student": model_directory(there, "base"),
        "dataset": get_job(here, built).result["dataset"],
        "name": "small",
    }
    job_id = put(there, {"kind": "train", "train": train})
    line.cut()
    thread = threading.Thread(
        target=child.run, args=(there, job_id), kwargs={"trainer": fake("ok")}
    )
    thread.start()
    wait_for(lambda: "storage_away" in told(here, job_id))
    line.mend()
    thread.join()
    job = get_job(here, job_id)
    assert (job.state, job.waiting_for) == (State.SUCCEEDED, None)
    with here.sessions.reading() as session:
        model = session.get_one(Artifact, job.result["model"])
    assert model.inputs == [train["dataset"]]
    assert (here.store.path(model) / "config.json").is_file()


def test_a_training_without_credentials_fails_and_says_why(
    host: NewHost, s3_server: S3Server, stub: StubTeacher
) -> None:
    here, there = host("here"), host("there")
    register(here, stub.url)
    built = submit(here, sums(5))
    run(here, built)
    train = {
        "method": "sequence_level",
        "student": model_directory(there, "base"),
        "dataset": get_job(here, built).result["dataset"],
        "name": "small",
    }
    job_id = put(there, {"kind": "train", "train": train})
    with s3_server.refusing():
        child.run(there, job_id, trainer=fake("ok"))
        with pytest.raises(StorageError):
            there.store.shared.check()
    job = get_job(there, job_id)
    assert (job.state, job.reason) == (State.FAILED, "storage")
    assert "InvalidAccessKeyId" in (job.detail or "")
