"""A teacher in another process: its log-probs, what is sound on them, and what is refused."""

import re
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers.models import WordLevel

from tests.trainer.conftest import make_model, make_records, make_tokenizer, save_model
from tests.trainer.methods.made import all_rows, dense, kept_targets, learnt, loss_of, made, spec_of
from tests.trainer.methods.served_teacher import Fake, serving
from tests.trainer.runs import Heard, same, weights
from trainer.batch import pack
from trainer.data import TokenRows
from trainer.errors import BadInput
from trainer.events import silent
from trainer.identity import digest_of
from trainer.objectives import cross_entropy, on_logits
from trainer.objectives.divergences import forward, reverse
from trainer.objectives.stored import outcomes
from trainer.served import ServedTeacher
from trainer.spec import TrainSpec
from trainer.training import train_on

VOCABULARY = 61


@pytest.fixture
def fake() -> Iterator[Fake]:
    with serving(Fake(make_model(1), make_tokenizer())) as one:
        yield one


def served(place: Path, fake: Fake, **fields: Any) -> TrainSpec:
    named = {"teacher": fake.url, "served_model": "big", "top_k": 5, **fields}
    return spec_of(place, "served_kl", **named)


def test_with_all_tokens_it_is_the_dense_divergence(tmp_path: Path, fake: Fake) -> None:
    for kind, divergence in (("forward_kl", forward), ("reverse_kl", reverse)):
        spec = served(tmp_path, fake, top_k=VOCABULARY, divergence={"kind": kind})
        run, student = made(spec)
        batch = all_rows(run)
        expected = on_logits(divergence, dense(run.model, batch), dense(fake.model, batch), 1.0)
        loss, metrics = loss_of(student, batch)
        assert loss.item() == pytest.approx(expected.mean().item(), rel=1e-4)
        assert metrics.keys() == {kind, "entropy"}


@pytest.mark.slow
@pytest.mark.parametrize("packing", [False, True])
def test_few_tokens_have_the_rest_as_one_more_outcome(
    tmp_path: Path, fake: Fake, packing: bool
) -> None:
    run, student = made(served(tmp_path, fake, cross_entropy_weight=0.25))
    batch = pack(run.rows.rows, 64) if packing else all_rows(run)
    rows = all_rows(run)
    ours, theirs = (dense(m, rows).log_softmax(-1) for m in (run.model, fake.model))
    ids = theirs.topk(5).indices
    soft = forward(outcomes(theirs, ids), outcomes(ours, ids)).mean()
    hard = cross_entropy(ours, kept_targets(rows)).mean()
    expected = 0.75 * soft + 0.25 * hard
    assert loss_of(student, batch)[0].item() == pytest.approx(expected.item(), rel=1e-4)


def test_the_students_own_answers_are_what_the_teacher_is_asked_about(
    tmp_path: Path, fake: Fake
) -> None:
    run, student = made(served(tmp_path, fake, student_share=1.0, max_new_tokens=6))
    (batch,) = learnt(student, [all_rows(run)])
    fake.asked.clear()
    loss_of(student, batch)
    assert sorted(fake.asked) == sorted(row.ids.tolist() for row in batch.rows)
    assert {tuple(row.ids) for row in batch.rows} != {tuple(row.ids) for row in run.rows.rows}


def test_a_padded_students_answers_hold_tokens_that_the_server_knows(
    tmp_path: Path, fake: Fake
) -> None:
    save_model(tmp_path / "student", make_model(vocab_size=128))
    run, student = made(served(tmp_path, fake, student_share=1.0, max_new_tokens=6))
    (batch,) = learnt(student, [all_rows(run)])
    assert int(batch.input_ids.max()) < VOCABULARY
    assert torch.isfinite(loss_of(student, batch)[0])


@pytest.mark.slow
def test_a_whole_run_and_a_server_that_comes_back(tmp_path: Path, fake: Fake) -> None:
    few = {"optimization": {"max_steps": 2}}
    spec = served(tmp_path, fake, **few)
    first = weights(train_on(spec, make_records(8), make_records(2), tmp_path / "a", silent))
    other = weights(
        train_on(
            served(tmp_path, fake, top_k=2, **few), make_records(8), [], tmp_path / "b", silent
        )
    )
    assert not same(first, other)
    slept: list[float] = []
    (row,) = made(spec, make_records(1))[0].rows.rows
    patient = ServedTeacher(fake.url, "big", 5, 4, sleep=slept.append)
    fake.away = 3
    (found,) = patient.thoughts([row])
    assert slept == [1.0, 2.0, 4.0]
    assert found.ids.shape == (row.completion_tokens, 5)
    fake.away = 10**6
    with pytest.raises(BadInput, match=r"503.*goes on from its last complete checkpoint"):
        patient.thoughts([row])
    fake.away = 0


def test_the_key_comes_from_the_variable_that_is_named(
    tmp_path: Path, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BadInput, match="BIG_KEY is not set"):
        made(served(tmp_path, fake, api_key_env="BIG_KEY"))
    monkeypatch.setenv("BIG_KEY", "secret")
    made(served(tmp_path, fake, api_key_env="BIG_KEY", in_flight=2))
    assert set(fake.keys) == {"Bearer secret"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"longest": 12}, "holds 12 tokens and the longest row has"),
        ({"most": 3}, r"refuses with 400.*--max-logprobs.*at most 3 are allowed"),
        ({"told": {"text": "hm"}}, "sends no log-probs of a prompt as vLLM does"),
        ({"told": {"prompt_logprobs": [None]}}, "1 places for"),
        ({"model": "vocabulary"}, "knows more tokens than the student's head"),
        ({"tokenizer": "other"}, "have different vocabularies"),
    ],
    ids=str,
)
def test_a_server_that_does_not_do_is_refused_before_the_first_step(
    tmp_path: Path, fake: Fake, wrong: dict[str, Any], words: str
) -> None:
    if wrong == {"model": "vocabulary"}:
        fake.model = make_model(2, vocab_size=500)
    elif wrong == {"tokenizer": "other"}:
        words_of = {"<unk>": 0, "w1": 1}
        fake.tokenizer._tokenizer.model = WordLevel(words_of, unk_token="<unk>")
    else:
        for name, value in wrong.items():
            setattr(fake, name, value)
    with pytest.raises(BadInput, match=words):
        made(served(tmp_path, fake))


def test_a_token_beyond_the_students_head_is_refused_whenever_it_comes(
    tmp_path: Path, fake: Fake
) -> None:
    """One row is asked about before the first step."""
    run, student = made(served(tmp_path, fake))
    fake.model = make_model(2, vocab_size=500)
    with pytest.raises(BadInput, match="knows more tokens than the student's head"):
        loss_of(student, all_rows(run))


@pytest.mark.slow
def test_a_server_too_short_for_the_students_answers_is_refused(tmp_path: Path, fake: Fake) -> None:
    """The rows fit: what the student may say behind their prompts doesn't."""
    fake.longest = 40
    made(served(tmp_path, fake))
    drawn = {"student_share": 1.0, "max_new_tokens": 60}
    with pytest.raises(BadInput, match="holds 40 tokens and a row with its answer may have 6"):
        made(served(tmp_path, fake, **drawn))
    made(served(tmp_path, fake, **drawn, optimization={"max_length": 39}))


@pytest.mark.parametrize("named", ["big", "http://[bad/v1", "http://host:no/v1", "http:///v1"])
def test_a_teacher_that_is_no_address_is_told_so(tmp_path: Path, fake: Fake, named: str) -> None:
    with pytest.raises(BadInput, match=f"teacher: {re.escape(named)} is no URL"):
        made(served(tmp_path, fake, teacher=named))


def test_a_teacher_that_is_away_at_the_start_is_told_soon(
    tmp_path: Path, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is loaded; a student that is finished needs it no more."""
    slept: list[float] = []
    restless = partial(ServedTeacher, sleep=slept.append)
    monkeypatch.setattr("trainer.methods.served.ServedTeacher", restless)
    spec, rows = served(tmp_path, fake, optimization={"max_steps": 1}), make_records(4)
    train_on(spec, rows, [], tmp_path / "done", silent)
    fake.away, heard = 10**6, Heard()
    train_on(spec, rows, [], tmp_path / "done", heard)
    assert heard[-1][1]["detail"] == "this student is finished already"
    heard.clear()
    with pytest.raises(BadInput, match=r"can't be reached: .*tokenize is away"):
        train_on(spec, rows, [], tmp_path / "new", heard)
    assert heard == []
    assert slept == [1.0, 2.0, 4.0]


def test_how_a_server_is_reached_does_not_make_another_run(tmp_path: Path, fake: Fake) -> None:
    """So that a checkpoint is taken up with less memory for the server, say."""
    drawn = {"student_share": 1.0, "max_new_tokens": 6}
    rows, nothing = made(served(tmp_path, fake))[0].rows, TokenRows((), 0, 0)

    def digest(**changed: Any) -> str:
        return digest_of(served(tmp_path, fake, **drawn, **changed), rows, [], nothing)

    less = {"vllm": {"memory_share": 0.1, "in_flight": 3}}
    assert digest(vllm={}) == digest(**less) == digest(**less, in_flight=2)
    assert digest(vllm={}) != digest()


def test_the_name_is_checked(tmp_path: Path, fake: Fake) -> None:
    with pytest.raises(BadInput, match=r"refuses with 404.*served_model 'small'"):
        made(served(tmp_path, fake, served_model="small"))


def test_what_is_not_sound_is_refused_with_the_reason(tmp_path: Path, fake: Fake) -> None:
    with pytest.raises(ValueError, match="can't be re-tempered"):
        served(tmp_path, fake, kd_temperature=2.0)
    with pytest.raises(ValueError, match="would teach the student its own answers"):
        served(tmp_path, fake, student_share=0.5, cross_entropy_weight=0.5)
    reasons = {
        "forward_kl": "use served_kl",
        "kd": "features need its hidden states",
        "gkd": "served_kl with a student_share",
        "minillm": "whole distribution at every token",
        "meta_ict": "use served_kl",
        "uld": "sorted over the whole vocabulary",
    }
    for method, reason in reasons.items():
        with pytest.raises(ValueError, match=f"needs the teacher's weights.*{reason}"):
            spec_of(tmp_path, method, teacher=fake.url)


def test_rows_are_asked_side_by_side(tmp_path: Path, fake: Fake) -> None:
    """As many at once as in_flight says, and no more."""
    rows = made(served(tmp_path, fake), make_records(6))[0].rows.rows
    lock, state = threading.Lock(), {"now": 0, "most": 0}
    meet = threading.Barrier(3)
    real = fake.answer

    def counted(path: str, body: dict[str, Any]) -> tuple[int, Any]:
        with lock:
            state["now"] += 1
            state["most"] = max(state["most"], state["now"])
        meet.wait(60)
        made = real(path, body)
        with lock:
            state["now"] -= 1
        return made

    fake.answer = counted  # type: ignore[method-assign]
    ServedTeacher(fake.url, "big", 5, 3).thoughts(rows)
    assert state["most"] == 3


def test_thoughts_are_the_teachers_own(tmp_path: Path, fake: Fake) -> None:
    rows = made(served(tmp_path, fake), make_records(3))[0].rows.rows
    for row, found in zip(rows, ServedTeacher(fake.url, "big", 4, 2).thoughts(rows), strict=True):
        with torch.no_grad():
            log_p = fake.model(input_ids=torch.tensor([row.ids.tolist()])).logits[0].log_softmax(-1)
        kept = log_p[row.prompt_tokens - 1 : -1]
        assert found.ids.tolist() == kept.topk(4).indices.tolist()
        left = 1 - torch.from_numpy(found.logprobs).double().exp().sum(-1)
        torch.testing.assert_close(torch.from_numpy(found.tail_logprob).double().exp(), left)
