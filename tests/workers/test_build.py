"""Whole builds in this process, against the fake teacher's."""

import errno
import threading
from pathlib import Path
from typing import Any

import pytest

from prompts.dataset import read_manifest, read_rejected
from prompts.record import Record
from prompts.spec import InstructionBuild
from service import events, jobs
from service.durable import Write, write_durably
from service.site import Site
from service.spec import BuildJob
from service.tables import Chunk, State
from tests.workers.conftest import (
    LEASE_S,
    StubTeacher,
    check_each_once,
    dataset_of,
    get_job,
    new_site,
    register,
    rows_of,
    run_build,
    submit,
    sums,
    upload,
    wait_for,
)
from workers import drain
from workers.chunk import OpenChunk
from workers.lease import Lease


def run(site: Site, job_id: str, write: Write = write_durably) -> None:
    run_build(site, job_id, write)


def model_of_words(tmp_path: Path) -> Path:
    """A model's directory for a teacher whose tokens are words; functions are part of a prompt."""
    # Here, not above: they take seconds to import, and these tests alone need them.
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    model = tmp_path / "model"
    words = Tokenizer(WordLevel({"[UNK]": 0, "What": 1}, unk_token="[UNK]"))
    words.pre_tokenizer = WhitespaceSplit()
    template = (
        "{% for tool in tools or () %}{{ tool.function.description }} {% endfor %}"
        "{% for message in messages %}{{ message.content }} {% endfor %}"
    )
    PreTrainedTokenizerFast(tokenizer_object=words, chat_template=template).save_pretrained(model)
    (model / "config.json").write_text("{}")
    return model


def described(words: str) -> dict[str, Any]:
    return {"function": {"name": "look", "description": words}}


@pytest.mark.slow
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


def test_doorbells_delivered_ten_times_change_nothing(site: Site, stub: StubTeacher) -> None:
    register(
        site,
        stub.url,
    )
    job_id = submit(site, sums(200))
    threads = [threading.Thread(target=run, args=(site, job_id)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for _ in range(5):
        run(site, job_id)
    assert get_job(site, job_id).state == State.SUCCEEDED
    check_each_once(dataset_of(site, job_id), 200)
    assert stub.stats()["requests"] == 200
    assert stub.stats()["most_in_flight"] <= 64 * 2  # A worker that joins may overshoot at first.


@pytest.mark.slow
def test_the_same_seeds_give_the_same_bytes(tmp_path: Path, stub: StubTeacher) -> None:
    shards = []
    for name in ("one", "two"):
        site = new_site(tmp_path / name)
        register(site, stub.url)
        job_id = submit(site, sums(150), chunk_rows=20 if name == "one" else 64)
        run(site, job_id)
        files = read_manifest(dataset_of(site, job_id)).files
        shards.append({(file.path, file.sha256) for file in files})
        site.sessions.engine.dispose()
    assert shards[0] == shards[1]


@pytest.mark.slow
def test_the_target_ends_the_asking(site: Site, stub: StubTeacher) -> None:
    register(site, stub.url)
    stub.faults(delay_s=0.05)
    job_id = submit(site, sums(400), target_rows=50, max_in_flight=8)
    run(site, job_id)
    job = get_job(site, job_id)
    assert job.state == State.SUCCEEDED
    assert job.result["accepted"] == 50
    assert job.result["reasons"]["target"] == job.result["not_needed"] > 0
    check_each_once(dataset_of(site, job_id), 400)
    assert stub.stats()["requests"] < 80 + 8


@pytest.mark.slow
def test_a_cancelled_build_keeps_what_was_paid_for(site: Site, stub: StubTeacher) -> None:
    register(site, stub.url)
    stub.faults(delay_s=0.1)
    job_id = submit(site, sums(400), max_in_flight=8)
    thread = threading.Thread(target=run, args=(site, job_id))
    thread.start()
    wait_for(lambda: stub.stats()["answered"] > 20)
    jobs.cancel(site, job_id)
    thread.join()
    job = get_job(site, job_id)
    assert (job.state, job.reason) == (State.CANCELLED, "cancelled")
    check_each_once(dataset_of(site, job_id), 400)
    assert job.result["reasons"]["cancelled"] == job.result["not_needed"] > 0
    assert stub.stats()["answered"] == 400 - job.result["not_needed"] == job.result["requests"]


def test_no_valid_row_is_an_empty_success(site: Site, stub: StubTeacher) -> None:
    register(site, stub.url)
    seeds = [seed | {"answer": "-1"} for seed in sums(40)]
    job_id = submit(site, seeds)
    run(site, job_id)
    job = get_job(site, job_id)
    assert (job.state, job.reason, job.result["accepted"]) == (State.SUCCEEDED, "empty", 0)
    assert all(row.raw for row in rows_of(dataset_of(site, job_id)) if not isinstance(row, Record))
    check_each_once(dataset_of(site, job_id), 40)


@pytest.mark.slow
def test_a_busy_teacher_is_asked_again(site: Site, stub: StubTeacher) -> None:
    register(site, stub.url)
    stub.faults(status=429, times=20, headers={"Retry-After": "0.2"})
    job_id = submit(site, sums(60))
    run(site, job_id)
    assert get_job(site, job_id).state == State.SUCCEEDED
    check_each_once(dataset_of(site, job_id), 60)
    assert (stub.stats()["requests"], stub.stats()["answered"]) == (80, 60)


def test_a_refusal_of_one_request_rejects_its_row(site: Site, stub: StubTeacher) -> None:
    register(site, stub.url)
    stub.faults(status=400, times=3, body="that prompt is too odd")
    job_id = submit(site, sums(30))
    run(site, job_id)
    assert get_job(site, job_id).result["reasons"]["teacher_error"] == 3
    odd = [row for row in rows_of(dataset_of(site, job_id)) if "too odd" in str(row)]
    assert len(odd) == 3
    assert stub.stats()["requests"] == 30


def test_an_unknown_model_fails_at_once(site: Site, stub: StubTeacher) -> None:
    register(site, stub.url, served_model="another")
    job_id = submit(site, sums(100), max_in_flight=4)
    run(site, job_id)
    job = get_job(site, job_id)
    assert (job.state, job.reason) == (State.FAILED, "teacher_unknown_model")
    assert "Register teacher stub again" in (job.detail or "")
    assert stub.stats()["requests"] <= 4


def test_a_key_that_the_worker_lacks_fails_before_asking(
    site: Site, stub: StubTeacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUB_KEY", "right-key")
    register(site, stub.url, api_key_env="STUB_KEY")
    job_id = submit(site, sums(10))
    monkeypatch.delenv("STUB_KEY")
    run(site, job_id)
    job = get_job(site, job_id)
    assert (job.state, job.reason) == (State.FAILED, "teacher_refused_key")
    assert "STUB_KEY" in (job.detail or "")
    assert stub.stats()["requests"] == 0


def test_a_wrong_key_fails_at_once(
    site: Site, stub: StubTeacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUB_KEY", "wrong-key")
    register(site, stub.url, api_key_env="STUB_KEY")
    job_id = submit(site, sums(100), max_in_flight=4)
    run(site, job_id)
    assert get_job(site, job_id).reason == "teacher_refused_key"
    assert stub.stats()["requests"] <= 4


@pytest.mark.slow
def test_a_resubmission_takes_over_what_was_paid_for(tmp_path: Path, stub: StubTeacher) -> None:
    site = new_site(tmp_path / "data", teacher_patience_s=1)
    register(site, stub.url)
    stub.faults(status=500, times=10**6, after=70)
    first = submit(site, sums(200), max_in_flight=8)
    run(site, first)
    assert get_job(site, first).reason == "paused_teacher"
    assert 70 <= stub.stats()["answered"] < 80
    jobs.cancel(site, first)
    run(site, first)
    assert get_job(site, first).state == State.CANCELLED
    stub.faults()
    second = submit(site, sums(200), max_in_flight=8)
    run(site, second)
    assert get_job(site, second).state == State.SUCCEEDED
    check_each_once(dataset_of(site, second), 200)
    assert stub.stats()["answered"] == 200
    site.sessions.engine.dispose()


@pytest.mark.slow
def test_a_full_disk_holds_the_build_up_and_loses_nothing(site: Site, stub: StubTeacher) -> None:
    register(site, stub.url)
    job_id = submit(site, sums(120), max_in_flight=16)
    refused: list[Path] = []
    freed = threading.Event()

    def full_disk(path: Path, data: bytes) -> None:  # A fake: a disk that fills up, then has room.
        if not freed.is_set() and path.name == "000002":
            refused.append(path)
            raise OSError(errno.ENOSPC, "No space left on device")
        write_durably(path, data)

    thread = threading.Thread(target=run, args=(site, job_id, full_disk))
    thread.start()
    wait_for(lambda: "disk" in (get_job(site, job_id).waiting_for or ""))
    asked = stub.stats()["requests"]
    assert refused
    assert asked < 120
    freed.set()
    thread.join()
    assert get_job(site, job_id).state == State.SUCCEEDED
    assert stub.stats()["requests"] == 120
    check_each_once(dataset_of(site, job_id), 120)
    with site.sessions.reading() as session:
        assert "disk_full" in [event.type for event in events.since(session, job_id)]


def test_a_prompt_beyond_the_context_is_not_asked(
    site: Site, stub: StubTeacher, tmp_path: Path
) -> None:
    probe = {"ok": True, "context_tokens": 300}
    register(site, stub.url, model=str(model_of_words(tmp_path)), probe=probe)
    seeds = sums(20)
    seeds[7]["question"] = "What " * 60 + seeds[7]["question"]
    job_id = submit(site, seeds)
    run(site, job_id)
    assert get_job(site, job_id).result["reasons"]["prompt_too_long"] == 1
    (long,) = (row for row in read_rejected(dataset_of(site, job_id)) if row.id == "s00007")
    assert "exceed the context of 300" in long.detail
    assert stub.stats()["requests"] == 19


def test_the_functions_of_a_row_count_as_its_prompt(
    site: Site, stub: StubTeacher, tmp_path: Path
) -> None:
    probe = {"ok": True, "context_tokens": 300}
    register(site, stub.url, model=str(model_of_words(tmp_path)), probe=probe)
    seeds = [
        {"id": f"i{words}", "instruction": f"Is it {words}?", "own": [described("It " * words)]}
        for words in (3, 60)
    ]
    fields = {"seeds": upload(site, seeds), "tools": "own"}
    spec = InstructionBuild.model_validate({"kind": "if", "teacher": "stub"} | fields)
    job_id = jobs.submit(site, BuildJob(kind="build", build=spec)).id
    run(site, job_id)
    (long,) = read_rejected(dataset_of(site, job_id))
    assert (long.id, long.reason) == ("i60", "prompt_too_long")
    assert long.detail.startswith("63 prompt tokens")
    assert stub.stats()["requests"] == 1


def test_a_limit_asks_for_the_first_seeds_only(site: Site, stub: StubTeacher) -> None:
    register(site, stub.url)
    job_id = submit(site, sums(100), limit=45)
    run(site, job_id)
    check_each_once(dataset_of(site, job_id), 45)
    assert stub.stats()["requests"] == 45


def test_a_spec_that_cannot_be_prepared_fails_its_job_once(site: Site, stub: StubTeacher) -> None:
    register(site, stub.url)
    job_id = submit(site, sums(10))
    with site.sessions.writing.begin() as session:  # As an older release may have stored it.
        job = jobs.get(session, job_id)
        job.spec = job.spec | {"build": job.spec["build"] | {"limit": 10**30}}
    run(site, job_id)
    job = get_job(site, job_id)
    assert (job.state, job.reason) == (State.FAILED, "crashed")
    assert "limit" in (job.detail or "")
    assert stub.stats()["requests"] == 0


def test_a_verifier_that_cannot_be_imported_is_bad_input(
    tmp_path: Path, stub: StubTeacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_verifier.py").write_text("raise SystemExit('not today')")
    monkeypatch.syspath_prepend(tmp_path)
    site = new_site(tmp_path / "data", allow_python_verifiers=True)
    register(site, stub.url)
    for path, words in (
        ("broken_verifier:same", "SystemExit: not today"),
        ("no_such_module:same", "No module named"),
        ("math:no_such_function", "math has no 'no_such_function'"),
    ):
        job_id = submit(site, sums(10), verify={"kind": "python", "function": path})
        run(site, job_id)
        job = get_job(site, job_id)
        assert (job.state, job.reason) == (State.FAILED, "bad_input")
        assert (job.detail or "").startswith(f"verify: {path!r} can't be imported")
        assert words in (job.detail or "")
    assert stub.stats()["requests"] == 0
    site.sessions.engine.dispose()


def test_files_gone_under_a_lost_lease_fail_nothing(
    site: Site, stub: StubTeacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(site, stub.url)
    job_id = submit(site, sums(64))
    opening = drain.open_chunk

    def open_too_late(sessions: Any, work: Any, lease: Lease, note: Any) -> OpenChunk:
        if lease.number == 0:
            return opening(sessions, work, lease, note)
        with site.sessions.writing.begin() as session:
            chunk = session.get_one(Chunk, lease.key)
            chunk.epoch, chunk.owner = chunk.epoch + 1, "heir"
        lease.renewed_at -= LEASE_S  # It slept.
        raise FileNotFoundError("seeds.jsonl")

    monkeypatch.setattr(drain, "open_chunk", open_too_late)
    run(site, job_id)
    assert get_job(site, job_id).state == State.RUNNING
    with site.sessions.reading() as session:
        assert session.get_one(Chunk, (job_id, 1)).owner == "heir"
