"""Builds with a teacher signal, in this process, against a fake teacher's log-probs."""

import numpy as np
import pytest

from prompts.dataset import open_signal, read_manifest
from prompts.record import Record
from prompts.signal import TopKRow
from service.problems import Problem
from service.site import Site
from service.tables import State
from tests.workers.conftest import dataset_of, get_job, register, rows_of, run_build, submit, sums
from tests.workers.writing_teacher import writing_teacher


def say(prompt: str) -> str:
    numbers = [int(word) for word in prompt.split("?")[0].split() if word.isdigit()]
    return f"<think>hm</think>So the answer is {sum(numbers) + (numbers[0] == 3)}"


def test_accepted_rows_have_the_signal_of_their_completions(site: Site) -> None:
    with writing_teacher(say) as teacher:
        register(site, teacher.url, probe={"ok": True, "revision": "r1", "max_logprobs": 5})
        job_id = submit(site, sums(40), signal={"top_k": 3}, chunk_rows=16)
        run_build(site, job_id)
    assert get_job(site, job_id).state == State.SUCCEEDED
    dataset = dataset_of(site, job_id)
    summary = read_manifest(dataset).signal
    assert summary is not None
    assert (summary.width, summary.rows, summary.teacher) == (3, 39, "stub")
    with open_signal(dataset) as reader:
        assert reader.header.teacher_revision == "r1"
        for row in rows_of(dataset):
            assert (row.id in reader) == isinstance(row, Record)
            if isinstance(row, Record):
                signal = reader.read(row.id)
                assert isinstance(signal, TopKRow)
                said = say(row.prompt[-1].content).split()
                assert signal.token_ids.tolist() == [len(word) for word in said]
                assert signal.ids.shape == (len(said), 3)
                np.testing.assert_allclose(np.exp(signal.logprobs[:, 0]), 0.5, atol=0.03)


def test_a_teacher_without_log_probs_fails_the_job_and_says_so(site: Site, stub: object) -> None:
    register(site, stub.url)  # type: ignore[attr-defined]
    job_id = submit(site, sums(4), signal={"top_k": 2})
    run_build(site, job_id)
    job = get_job(site, job_id)
    assert (job.state, job.reason) == (State.FAILED, "teacher_without_signal")
    assert "serve the teacher with vLLM" in (job.detail or "")


@pytest.mark.parametrize(
    ("signal", "probe", "words"),
    [
        ({"sampled": 12}, {}, "needs the teacher in process"),
        ({"top_k": 21}, {"max_logprobs": 20}, "gives 20 log-probs"),
    ],
)
def test_what_the_teacher_cannot_give_is_refused_at_submit(
    site: Site, signal: dict[str, int], probe: dict[str, int], words: str
) -> None:
    register(site, "http://127.0.0.1:1", probe={"ok": True} | probe)
    with pytest.raises(Problem) as refused:
        submit(site, sums(4), signal=signal)
    (fault,) = refused.value.faults
    assert fault.location == "build.signal"
    assert words in fault.message


def test_two_teachers_with_different_tokenizers_are_refused(site: Site) -> None:
    for name in ("stub", "other"):
        register(
            site, "http://127.0.0.1:1", name=name, probe={"ok": True, "tokenizer_sha256": name}
        )
    with pytest.raises(Problem) as refused:
        submit(site, sums(4), signal={"top_k": 2}, teachers=[{"name": "stub"}, {"name": "other"}])
    assert [fault.location for fault in refused.value.faults] == ["build.signal"]


def test_half_a_character_from_a_teacher_ends_no_build(site: Site) -> None:
    with writing_teacher(lambda prompt: f"\ud83d{say(prompt).rpartition('>')[2]}") as teacher:
        register(site, teacher.url, probe={"ok": True, "max_logprobs": 5})
        job_id = submit(
            site, sums(8), signal={"top_k": 3}, near_duplicates={}, novelty={"rouge_l": 1}
        )
        run_build(site, job_id)
    assert get_job(site, job_id).state == State.SUCCEEDED
    rows = [row for row in rows_of(dataset_of(site, job_id)) if isinstance(row, Record)]
    assert rows
    assert all(row.completion[-1].content.startswith("\ufffdSo the answer") for row in rows)
