"""Rescore builds in this process, against a fake teacher's log-probs of prompts; one against vLLM.

The token ids are those of the bundled demo teacher's tokenizer and chat template.
"""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prompts.dataset import open_signal, read_manifest
from prompts.record import Record
from prompts.signal import TopKRow, tokenizer_sha256
from prompts.spec import CotBuild, RescoreBuild
from service import jobs
from service.durable import Write, write_durably
from service.problems import Problem
from service.site import Site
from service.spec import BuildJob
from service.tables import State, Teacher
from tests.conftest import ROOT
from tests.workers.conftest import (
    dataset_of,
    dying_disk,
    get_job,
    new_site,
    register,
    rows_of,
    upload,
    wait_for,
)
from tests.workers.test_child import put
from tests.workers.writing_teacher import WritingTeacher, writing_teacher
from trainer.data import encode
from trainer.loading import load_tokenizer
from trainer.methods.stored import check_tokens, select_signalled
from trainer.spec import StoredKL
from workers import build, serve
from workers.watch import Watch

MODEL = ROOT / "examples" / "demo" / "models" / "teacher"
SEEDS = ROOT / "examples" / "demo" / "data" / "cot.seeds.jsonl"
END = 4
"""The demo tokenizer's `<|end|>`."""


@pytest.fixture
def teacher() -> Iterator[WritingTeacher]:
    with writing_teacher(lambda prompt: "Tom has 3 apples . The answer is 3 .") as started:
        yield started


def known(site: Site, url: str, **probe: Any) -> None:
    facts = {"ok": True, "revision": "r1", "max_logprobs": 20, "context_tokens": 1024}
    register(site, url, model=str(MODEL), probe=facts | probe)


def written(site: Site, rows: int = 40, **fields: Any) -> str:
    """A dataset of answers to the demo's questions; its path's job."""
    lines = SEEDS.read_text().splitlines()[:rows]
    spec = {
        "kind": "cot",
        "name": "stories",
        "teacher": "stub",
        "seeds": upload(site, [json.loads(line) for line in lines]),
        "template": "{{ question }} Think step by step.",
        "verify": "none",
        "deduplicate": False,
    }
    return run(site, CotBuild.model_validate(spec | fields))


def rescored(site: Site, write: Write = write_durably, **fields: Any) -> str:
    spec = {"kind": "rescore", "name": "scored", "teacher": "stub", "seeds": "stories"}
    given = spec | {"signal": {"top_k": 3}, "chunk_rows": 16} | fields
    return run(site, RescoreBuild.model_validate(given), write)


def run(site: Site, spec: CotBuild | RescoreBuild, write: Write = write_durably) -> str:
    job_id = jobs.submit(site, BuildJob(kind="build", build=spec)).id
    build.run(site, job_id, Watch(site.settings.lease_s), write)
    return job_id


def records(dataset: Path) -> dict[str, Record]:
    return {row.id: row for row in rows_of(dataset) if isinstance(row, Record)}


def test_rows_keep_what_they_are_and_get_the_signal_of_the_tokens_that_are_trained(
    site: Site, teacher: WritingTeacher
) -> None:
    known(site, teacher.url)
    before = records(dataset_of(site, written(site)))
    job_id = rescored(site)
    job, dataset = get_job(site, job_id), dataset_of(site, job_id)
    assert (job.state, job.detail) == (State.SUCCEEDED, None)
    assert len(teacher.scored) == len(before) == job.result["requests"] == 40
    after = records(dataset)
    cost = {"usage"}
    assert {name: row.model_dump(exclude=cost) for name, row in after.items()} == {
        name: row.model_dump(exclude=cost) for name, row in before.items()
    }
    rows = encode(list(after.values()), load_tokenizer(MODEL), 1024, frozenset({END})).rows
    with open_signal(dataset) as reader:
        assert reader.header.tokenizer_sha256 == tokenizer_sha256(MODEL)
        assert reader.header.template_sha256 is not None
        for row in rows:
            signal = reader.read(row.row)
            assert isinstance(signal, TopKRow)
            check_tokens(row, signal.token_ids)
            assert signal.token_ids[-1] == END
            assert list(row.ids) in teacher.scored
            # The k likeliest, whether the row's own token is one of them or not.
            np.testing.assert_allclose(np.exp(signal.logprobs[:, 0]), 0.5, atol=0.03)
            own_first = signal.ids[:, 0] == signal.token_ids
            assert (own_first == (signal.token_ids % 4 != 0)).all()
    one = next(iter(after.values()))
    cost = before[one.id].usage.prompt_tokens + len(teacher.scored[0])
    assert one.usage.prompt_tokens == pytest.approx(cost, abs=40)
    spec = StoredKL.model_validate(
        {"method": "stored_kl", "student": str(MODEL), "dataset": str(dataset)}
    )
    assert len(select_signalled(spec, list(after.values()))) == 40


@pytest.mark.slow
def test_a_rescoring_that_dies_half_way_asks_nothing_twice(
    site: Site, teacher: WritingTeacher
) -> None:
    known(site, teacher.url)
    written(site, 60)
    first = rescored(site, dying_disk(3), max_in_flight=4)
    assert (get_job(site, first).state, get_job(site, first).reason) == (State.FAILED, "storage")
    paid = len(teacher.scored)
    assert 0 < paid < 60
    second = rescored(site, max_in_flight=4)
    assert get_job(site, second).state == State.SUCCEEDED
    assert read_manifest(dataset_of(site, second)).counts.accepted == 60
    assert 60 <= len(teacher.scored) <= 60 + 4 + 32


def test_limit_and_target_hold_as_in_any_build(site: Site, teacher: WritingTeacher) -> None:
    known(site, teacher.url)
    written(site)
    job_id = rescored(site, target_rows=10, limit=20, max_in_flight=2)
    counts = read_manifest(dataset_of(site, job_id)).counts
    assert (counts.seeds, counts.accepted, counts.not_needed) == (20, 10, 10)


def test_what_is_too_long_or_cannot_be_written_is_rejected_as_a_row(
    site: Site, teacher: WritingTeacher
) -> None:
    known(site, teacher.url)
    written(site, 8)
    known(site, teacher.url, context_tokens=20)
    job_id = rescored(site)
    assert read_manifest(dataset_of(site, job_id)).reasons == {"prompt_too_long": 8}
    assert teacher.scored == []


def test_a_server_without_the_route_fails_the_job_and_says_so(site: Site, stub: Any) -> None:
    known(site, stub.url)
    written(site, 4, template="{{ question }} What is 1 plus 2?")
    job = get_job(site, rescored(site))
    assert (job.state, job.reason) == (State.FAILED, "teacher_without_completions")
    assert "Serve it with vLLM" in (job.detail or "")


def refused(site: Site, **fields: Any) -> list[tuple[str, str]]:
    with pytest.raises(Problem) as problem:
        rescored(site, **fields)
    return [(fault.location, fault.message) for fault in problem.value.faults]


def test_what_cannot_be_rescored_is_refused_at_submit(site: Site, teacher: WritingTeacher) -> None:
    known(site, teacher.url)
    ((place, words),) = refused(site)
    assert place == "build.seeds"
    assert "stories" in words
    written(site, 4)
    assert refused(site, signal={"top_k": 21})[0][0] == "build.signal"
    assert "in process" in refused(site, signal={"sampled": 4})[0][1]
    file = upload(site, [{"question": "What?"}])
    assert "takes a dataset" in refused(site, seeds=file)[0][1]
    register(site, teacher.url, model=None, probe={"ok": True, "max_logprobs": 20})
    assert refused(site) == [
        (
            "build.teacher",
            "a rescore build writes token ids itself, and tokenizer.json and chat template of "
            "teacher 'stub' are not at hand: register it with its directory as `model`",
        )
    ]


@pytest.mark.servers
@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_vllm_rescores_its_own_completions_to_the_same_signal(tmp_path: Path) -> None:
    site = new_site(tmp_path / "data", lease_s=60.0, min_free_bytes=0)
    job_id = put(site, {"kind": "serve", "model": str(MODEL), "name": "stub"})
    with site.sessions.writing.begin() as session:
        jobs.get(session, job_id).name = "stub"
    ends = threading.Event()
    thread = threading.Thread(
        target=serve.run, args=(site, job_id), kwargs={"worker_stops": ends.is_set}, daemon=True
    )
    thread.start()
    wait_for(lambda: _is_there(site), 600)
    first = written(site, 24, signal={"top_k": 8}, sampling={"max_tokens": 96})
    second = rescored(site, signal={"top_k": 8})
    jobs.cancel(site, job_id)
    thread.join(120)
    assert (get_job(site, second).state, get_job(site, second).detail) == (State.SUCCEEDED, None)
    compared = _compared(dataset_of(site, first), dataset_of(site, second))
    assert compared["rows"] >= 20
    assert compared["tokens"] >= 500
    assert compared["median_nats"] <= 0.02
    assert compared["share_same_set"] >= 0.9
    site.sessions.engine.dispose()


def _is_there(site: Site) -> bool:
    with site.sessions.reading() as session:
        teacher = session.get(Teacher, "stub")
        return teacher is not None and bool(teacher.probe.get("ok"))


def _compared(generated: Path, scored: Path) -> dict[str, float]:
    """How far the two signals are from each other, over tokens and entries that both keep.

    bfloat16 activations under other batches differ in their last bits, so the eighth likeliest
    token of one may be the ninth of the other.
    """
    nats: list[float] = []
    same = tokens = rows = 0
    with open_signal(generated) as one, open_signal(scored) as other:
        for name in records(scored):
            ours, theirs = other.read(name), one.read(name)
            assert isinstance(ours, TopKRow)
            assert isinstance(theirs, TopKRow)
            assert ours.token_ids.tolist() == theirs.token_ids.tolist()
            rows, tokens = rows + 1, tokens + len(ours.token_ids)
            for place in range(len(ours.token_ids)):
                mine = dict(zip(ours.ids[place].tolist(), ours.logprobs[place], strict=True))
                given = dict(zip(theirs.ids[place].tolist(), theirs.logprobs[place], strict=True))
                same += mine.keys() == given.keys()
                nats += [
                    abs(mine[i] - given[i]) for i in mine.keys() & given.keys() if mine[i] > -4
                ]
    return {
        "rows": rows,
        "tokens": tokens,
        "median_nats": float(np.median(nats)),
        "share_same_set": same / tokens,
    }
