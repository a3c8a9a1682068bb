"""Rescore builds with the teacher in this process: the demo's weights, and no server at all."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prompts.dataset import open_signal, read_manifest
from prompts.record import Call, CallDraws
from prompts.signal import SampledRow, TopKRow, tokenizer_sha256
from prompts.spec import RescoreBuild
from service import jobs, pausing
from service.durable import write_durably
from service.problems import Problem
from service.site import Site
from service.spec import BuildJob, RecipeJob
from service.tables import Job, State
from tests.workers.conftest import dataset_of, dying_disk, get_job, new_site, register, run_build
from tests.workers.test_rescore import MODEL, known, records, refused, rescored, written
from tests.workers.writing_teacher import WritingTeacher, writing_teacher
from trainer.data import encode
from trainer.loading import load_tokenizer
from trainer.methods.stored import check_tokens, select_signalled
from trainer.spec import StoredKL
from workers.lease import claim_job, release
from workers.ledger import read_entries
from workers.prepare import prepare
from workers.work import build_spec

SAMPLED = {
    "kind": "rescore",
    "name": "drawn",
    "teacher": "stub",
    "seeds": "stories",
    "in_process": True,
    "signal": {"sampled": 12},
}
END = 4
"""The demo tokenizer's `<|end|>`."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """An installation whose leases outlast a model's loading on a busy machine."""
    opened = new_site(tmp_path / "data", lease_s=60.0)
    yield opened
    opened.sessions.engine.dispose()


@pytest.fixture
def stories(site: Site) -> Iterator[WritingTeacher]:
    """A dataset `stories`; the server that wrote it is away by then."""
    with writing_teacher(lambda prompt: "Tom has 3 apples . The answer is 3 .") as teacher:
        known(site, teacher.url)
        written(site, 40)
    yield teacher
    assert teacher.scored == []  # It was asked for nothing else.


def in_process(site: Site, **fields: Any) -> str:
    return rescored(site, **{"in_process": True, "signal": {"sampled": 12}} | fields)


@pytest.mark.slow
def test_draws_come_from_the_teachers_weights_and_no_server_is_asked(
    site: Site, stories: WritingTeacher
) -> None:
    register(site, "http://127.0.0.1:1", model=str(MODEL), probe={"ok": False, "error": "away"})
    job_id = in_process(site)
    job, dataset = get_job(site, job_id), dataset_of(site, job_id)
    assert (job.state, job.detail) == (State.SUCCEEDED, None)
    kept = records(dataset)
    rows = encode(list(kept.values()), load_tokenizer(MODEL), 1024, frozenset({END})).rows
    with open_signal(dataset) as reader:
        header = reader.header
        assert (header.kind, header.width, header.proposal_temperature) == ("sampled", 12, 1.0)
        assert header.tokenizer_sha256 == tokenizer_sha256(MODEL)
        assert len(rows) == len(kept) == 40
        for row in rows:
            signal = reader.read(row.row)
            assert isinstance(signal, SampledRow)
            check_tokens(row, signal.token_ids)
            assert signal.ids.shape == (row.completion_tokens, 12)
            np.testing.assert_allclose(signal.weights, 1 / 12, rtol=1e-3)
    spec = {"method": "stored_kl", "student": str(MODEL), "dataset": str(dataset)}
    assert len(select_signalled(StoredKL.model_validate(spec), list(kept.values()))) == 40


def test_more_of_the_likeliest_than_servers_give(site: Site, stories: WritingTeacher) -> None:
    known(site, stories.url, max_logprobs=20)
    dataset = dataset_of(site, in_process(site, signal={"top_k": 64}, limit=4))
    with open_signal(dataset) as reader:
        for name in records(dataset):
            row = reader.read(name)
            assert isinstance(row, TopKRow)
            assert row.ids.shape[1] == 64
            total = np.exp(row.logprobs).sum(axis=1) + np.exp(row.tail_logprob)
            np.testing.assert_allclose(total, 1, atol=1e-3)


@pytest.mark.slow
def test_one_that_dies_half_way_goes_on_from_its_ledger(
    site: Site, stories: WritingTeacher
) -> None:
    first = in_process(site, max_in_flight=4, write=dying_disk(3))
    assert (get_job(site, first).state, get_job(site, first).reason) == (State.FAILED, "storage")
    kept = read_entries_of(site, first)
    assert 0 < len(kept) < 40
    scored: list[int] = []

    def noting(path: Path, data: bytes) -> None:
        if path.parent.parent.parent.parent.name == "ledger":
            scored.append(data.count(b"\n") - 1)  # An entry a line, below the header.
        write_durably(path, data)

    dataset = dataset_of(site, in_process(site, max_in_flight=4, write=noting))
    assert sum(scored) == 40 - len(kept)
    with open_signal(dataset) as reader:
        assert len(records(dataset)) == reader.rows_total == 40
        for call in kept:
            signal = reader.read(call.row)
            assert isinstance(call.signal, CallDraws)
            assert signal.ids.tolist() == [list(one) for one in call.signal.draws]


def test_a_row_longer_than_the_weights_were_made_for_is_rejected(
    site: Site, stories: WritingTeacher, tmp_path: Path
) -> None:
    short = tmp_path / "short"
    shutil.copytree(MODEL, short)
    config = json.loads((short / "config.json").read_text())
    (short / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 20}))
    register(site, "http://127.0.0.1:1", model=str(short), probe={"ok": False})
    reasons = read_manifest(dataset_of(site, in_process(site, limit=4))).reasons
    assert reasons == {"prompt_too_long": 4}


def test_the_same_rows_give_the_same_draws(site: Site, stories: WritingTeacher) -> None:
    first = dataset_of(site, in_process(site, name="one", max_in_flight=1, limit=6))
    second = dataset_of(site, in_process(site, name="two", max_in_flight=6, limit=6))
    with open_signal(first) as one, open_signal(second) as two:
        for name in records(first):
            mine, theirs = one.read(name), two.read(name)
            assert (mine.ids == theirs.ids).mean() > 0.99  # Sums of other batches differ in bits.


def test_what_cannot_be_done_in_process_is_refused_at_submit(
    site: Site, stories: WritingTeacher, tmp_path: Path
) -> None:
    ask = {"in_process": True}
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (MODEL / name).is_file():
            (bare / name).write_bytes((MODEL / name).read_bytes())
    register(site, "http://127.0.0.1:1", model=str(bare), probe={"ok": True})
    ((place, words),) = refused(site, signal={"sampled": 4}, **ask)
    assert place == "build.in_process"
    assert "holds no weights" in words
    config = json.loads((bare / "config.json").read_text())
    (bare / "config.json").write_text(json.dumps(config | {"vocab_size": 100}))
    (bare / "model.safetensors").write_bytes(b"")
    assert refused(site, signal={"top_k": 101}, **ask) == [
        ("build.signal", "top_k is 101, teacher 'stub' knows 100 tokens")
    ]
    recipe = {"kind": "recipe", "serve": {"kind": "serve", "model": str(MODEL), "name": "it"}}
    with pytest.raises(Problem) as problem:
        jobs.submit(site, RecipeJob.model_validate(recipe | {"build": SAMPLED | {"teacher": "it"}}))
    assert [fault.location for fault in problem.value.faults] == ["build.in_process"]


@pytest.mark.slow
def test_it_waits_for_the_device(site: Site, stories: WritingTeacher) -> None:
    add_training(site, "first")
    with site.sessions.writing() as session:
        assert claim_job(session, "first", "one") is not None
    job_id = in_process(site)
    job = get_job(site, job_id)
    assert job.state == State.QUEUED
    assert "train job first" in (job.waiting_for or "")
    end(site, "first")
    run_build(site, job_id)
    assert get_job(site, job_id).state == State.SUCCEEDED


def test_one_that_was_paused_takes_the_device_from_nobody(
    site: Site, stories: WritingTeacher
) -> None:
    spec = RescoreBuild.model_validate(SAMPLED | {"limit": 4})
    job_id = jobs.submit(site, BuildJob(kind="build", build=spec)).id
    with site.sessions.writing() as session:
        lease = claim_job(session, job_id, "one")
        assert lease is not None
    prepare(site, lease, build_spec(get_job(site, job_id)))
    with site.sessions.writing() as session:
        assert release(session, lease)
    add_training(site, "later")
    with site.sessions.writing() as session:
        assert claim_job(session, "later", "two") is None
    assert f"build job {job_id}" in (get_job(site, "later").waiting_for or "")
    pausing.pause(site, job_id)
    with site.sessions.writing() as session:
        assert claim_job(session, "later", "two") is not None
    pausing.resume(site, job_id)
    run_build(site, job_id)
    job = get_job(site, job_id)
    assert job.state == State.RUNNING
    assert "train job later" in (job.waiting_for or "")
    end(site, "later")
    run_build(site, job_id)
    assert get_job(site, job_id).state == State.SUCCEEDED


def read_entries_of(site: Site, job_id: str) -> list[Call]:
    chunks = sorted((site.store.root / "ledger" / job_id).glob("0*"))
    found = [entries for chunk in chunks for entries in read_entries(chunk).values()]
    return [entry.call for entries in found for entry in entries]


def add_training(site: Site, name: str) -> None:
    with site.sessions.writing.begin() as session:
        session.add(Job(id=name, kind="train", name=name, state=State.QUEUED, spec={}))


def end(site: Site, name: str) -> None:
    with site.sessions.writing.begin() as session:
        session.get_one(Job, name).state = State.SUCCEEDED
