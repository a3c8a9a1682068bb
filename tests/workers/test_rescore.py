"""Rescore builds in this process, against a fake teacher's log-probs of prompts. Against vLLM's:
test_on_vllm.py.

The token ids are those of the bundled demo teacher's tokenizer and chat template.
"""

import json
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
from service.tables import State
from tests.conftest import ROOT
from tests.workers.conftest import (
    dataset_of,
    dying_disk,
    get_job,
    register,
    rows_of,
    run_build,
    upload,
)
from tests.workers.writing_teacher import WritingTeacher, writing_teacher
from trainer.data import encode
from trainer.loading import load_tokenizer
from trainer.methods.stored import check_tokens, select_signalled
from trainer.spec import StoredKL

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
    run_build(site, job_id, write)
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
