"""What is drawn, what of it is learnt, and the losses on it."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainer.conftest import make_model, make_record, make_records, save_model
from tests.trainer.methods.made import (
    NOW,
    all_rows,
    dense,
    kept_targets,
    learnt,
    loss_of,
    made,
    spec_of,
)
from tests.trainer.test_refusals import recurrent
from trainer.batch import pad
from trainer.drawing import inverted
from trainer.errors import BadInput
from trainer.generation import answer_greedily
from trainer.loading import load_model
from trainer.methods.minillm import columns_of
from trainer.methods.on_policy import own_answers
from trainer.objectives import cross_entropy, on_logits
from trainer.objectives.divergences import jsd
from trainer.rollout import Drawing, Sample, draw
from trainer.student import Moment

END = frozenset({3})
PROMPTS = [[2, 8, 9], [2, 10], [2, 8, 9, 11, 12]]


def even(answers: int, length: int) -> torch.Tensor:
    """Chances of so many answers."""
    generator = torch.Generator().manual_seed(5)
    return torch.rand(answers, length, generator=generator, dtype=torch.float64)


def test_nearly_cold_draws_are_the_greedy_answers() -> None:
    """The cache, the left padding and the leaving of finished rows, against the greedy path."""
    model = make_model(initializer_range=0.5)
    cold = draw(model, PROMPTS, Drawing(12, temperature=1e-4), END, even(3, 12))
    greedy = answer_greedily(model, PROMPTS, 12, 3, END)
    found = [tuple(one.ids[:-1] if one.ids[-1] == 3 else one.ids) for one in cold]
    assert found == list(greedy.ids)


def test_draws_follow_the_mixture_and_note_both_models() -> None:
    student, teacher = make_model(), make_model(1)
    drawing = Drawing(1, samples=4000, teacher_mix=0.3)
    samples = draw(student, [PROMPTS[0]], drawing, END, even(4000, 1), teacher)
    with torch.no_grad():
        q, p = (
            m(input_ids=torch.tensor([PROMPTS[0]])).logits[0, -1].softmax(-1)
            for m in (student, teacher)
        )
    mixture = 0.7 * q + 0.3 * p
    counts = torch.bincount(torch.tensor([one.ids[0] for one in samples]), minlength=len(q))
    error = (mixture * (1 - mixture) / 4000).sqrt()
    assert ((counts / 4000 - mixture).abs() < 5 * error + 1e-6).all()
    one = samples[0]
    for noted, exact in ((one.drawn_from, mixture), (one.student, q), (one.teacher, p)):
        assert noted[0] == pytest.approx(exact[one.ids[0]].log().item(), abs=1e-4)


def test_several_answers_share_a_prompt_and_end_by_themselves() -> None:
    model = make_model(initializer_range=0.02)
    samples = draw(model, PROMPTS, Drawing(40, samples=3), END, even(9, 40))
    assert [one.prompt for one in samples] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert len({len(one.ids) for one in samples}) > 2
    assert all(3 not in one.ids[:-1] for one in samples)
    with torch.no_grad():
        one = samples[4]
        ids = torch.tensor([PROMPTS[1] + one.ids])
        log_q = model(input_ids=ids).logits[0, 1:-1].log_softmax(-1)
    expected = log_q.gather(1, torch.tensor(one.ids)[:, None]).squeeze(1)
    torch.testing.assert_close(torch.tensor(one.student), expected, rtol=1e-3, atol=1e-3)


def test_the_first_end_token_is_learnt_and_nothing_after_it(tmp_path: Path) -> None:
    """Peers mask by pad id: where the pad is the end token, no student ever learns to stop, or a
    mask that never masks lets padding in."""
    run, student = made(spec_of(tmp_path, "gkd", max_new_tokens=30))
    (batch,) = learnt(student, [all_rows(run)])
    kept = kept_targets(batch).tolist()
    starts = 0
    for row in batch.rows:
        answer = row.ids[row.prompt_tokens :].tolist()
        assert kept[starts : starts + len(answer)] == answer
        assert 3 not in answer[:-1]
        starts += len(answer)
    assert starts == len(kept) == batch.kept
    assert any(row.ids[-1] == 3 for row in batch.rows)


def test_gkds_loss_is_the_divergence_on_the_students_own_answers(tmp_path: Path) -> None:
    run, student = made(spec_of(tmp_path, "gkd", max_new_tokens=8))
    (batch,) = learnt(student, [all_rows(run)])
    given = {row.row: row.ids[: row.prompt_tokens].tolist() for row in run.rows.rows}
    assert all(row.ids[: row.prompt_tokens].tolist() == given[row.row] for row in batch.rows)
    ours, theirs = dense(run.model, batch), dense(load_model(tmp_path / "teacher"), batch)
    expected = on_logits(jsd(0.5), ours, theirs, 1.0).mean()
    assert loss_of(student, batch)[0].item() == pytest.approx(expected.item(), rel=1e-4)
    assert not batch.input_ids.is_inference()


def test_a_step_draws_by_its_number_and_seed_alone(tmp_path: Path) -> None:
    run, student = made(spec_of(tmp_path, "gkd", max_new_tokens=8))

    def drawn(moment: Moment) -> list[int]:
        return learnt(student, [all_rows(run)], moment)[0].input_ids.flatten().tolist()

    assert drawn(NOW) == drawn(NOW)
    assert all(drawn(other) != drawn(NOW) for other in (Moment(4, 0, 0), Moment(3, 1, 0)))
    assert drawn(Moment(3, 0, 1)) == drawn(NOW)


def test_what_a_row_draws_does_not_depend_on_its_neighbours(tmp_path: Path) -> None:
    """So that ranks and accumulation learn from the same answers."""
    run, student = made(spec_of(tmp_path, "gkd", max_new_tokens=8, samples=2))
    (whole,) = learnt(student, [all_rows(run)])
    parts = learnt(student, [pad(run.rows.rows[4:]), pad(run.rows.rows[:4])])
    answers = [row.ids.tolist() for row in whole.rows]
    assert answers[8:] + answers[:8] == [r.ids.tolist() for part in parts for r in part.rows]
    assert len({tuple(answer) for answer in answers}) > 6


def test_a_token_without_a_share_is_never_chosen() -> None:
    logprobs = torch.tensor([[0.0, 0.5, 0.0, 0.5, 0.0]]).log().expand(5, 5)
    chances = torch.tensor([0.0, 0.4999, 0.5, 0.9999999, 1.0], dtype=torch.float64)
    found = inverted(logprobs, chances[:, None]).squeeze(1).tolist()
    assert found[:4] == [1, 1, 3, 3]


@pytest.mark.parametrize("method", ["gkd", "minillm"])
def test_own_answers_are_packed_too(tmp_path: Path, method: str) -> None:
    fields = {"max_new_tokens": 8, "samples": 2}
    padded, plain = made(spec_of(tmp_path, method, **fields))
    packing = spec_of(tmp_path, method, **fields, optimization={"packing": True})
    _, packed = made(packing)
    (one,) = learnt(plain, [all_rows(padded)])
    (other,) = learnt(packed, [all_rows(padded)])
    assert other.segments is not None
    assert other.input_ids.shape[0] < one.input_ids.shape[0]
    assert other.kept == one.kept
    assert loss_of(packed, other)[0].item() == pytest.approx(
        loss_of(plain, one)[0].item(), rel=1e-4
    )


@pytest.mark.parametrize("method", ["gkd", "minillm"])
@pytest.mark.parametrize(("ours", "theirs"), [(128, 61), (128, 128), (61, 128)])
def test_rows_of_a_head_that_are_no_token_are_never_drawn(
    tmp_path: Path, method: str, ours: int, theirs: int
) -> None:
    """Heads are padded, each size of a family as it likes: the teacher may not know what lies
    beyond the tokenizer."""
    save_model(tmp_path / "student", make_model(vocab_size=ours))
    save_model(tmp_path / "teacher", make_model(1, vocab_size=theirs))
    run, student = made(spec_of(tmp_path, method, max_new_tokens=8, samples=2))
    (batch,) = learnt(student, [all_rows(run)])
    assert int(batch.input_ids.max()) < 61
    assert torch.isfinite(loss_of(student, batch)[0])


def test_what_is_noted_is_the_share_among_what_can_be_drawn() -> None:
    model = make_model()
    drawing = Drawing(1, samples=200, known=20)
    samples = draw(model, [PROMPTS[0]], drawing, END, even(200, 1))
    with torch.no_grad():
        q = model(input_ids=torch.tensor([PROMPTS[0]])).logits[0, -1].softmax(-1)
    assert {one.ids[0] for one in samples} <= set(range(20))
    for one in samples:
        share = q[one.ids[0]]
        assert one.drawn_from[0] == pytest.approx((share / q[:20].sum()).log().item(), abs=1e-4)
        assert one.student[0] == pytest.approx(share.log().item(), abs=1e-4)


def test_so_it_is_where_the_teachers_head_alone_has_more() -> None:
    model, teacher = make_model(), make_model(1, vocab_size=128)
    drawing = Drawing(1, samples=200, teacher_mix=0.5, known=61)
    samples = draw(model, [PROMPTS[0]], drawing, END, even(200, 1), teacher)
    with torch.no_grad():
        ids = torch.tensor([PROMPTS[0]])
        q, p = (one(input_ids=ids).logits[0, -1].softmax(-1)[:61] for one in (model, teacher))
    mixture = (q + p) / (q + p).sum()
    for one in samples:
        assert one.drawn_from[0] == pytest.approx(mixture[one.ids[0]].log().item(), abs=1e-4)


def test_lambda_is_the_share_of_steps_with_own_answers() -> None:
    steps = [own_answers(0.3, Moment(step, 0, 0)) for step in range(2000)]
    assert sum(steps) / 2000 == pytest.approx(0.3, abs=0.04)
    assert [own_answers(0.3, Moment(step, 0, 1)) for step in range(2000)] == steps
    assert not any(own_answers(0.0, Moment(step, 0, 0)) for step in range(100))
    assert all(own_answers(1.0, Moment(step, 0, 0)) for step in range(100))


@pytest.mark.parametrize(
    "fields",
    [
        {"divergence": {"kind": "reverse_kl"}},
        {"kd_temperature": 2.0},
        {"sampling_temperature": 0.5},
        {"samples": 2},
        {"max_new_tokens": 3},
        {"student_share": 0.0},
    ],
    ids=str,
)
def test_no_dead_option_of_gkd(tmp_path: Path, fields: dict[str, Any]) -> None:
    assert step_loss(tmp_path, "gkd", {}) != step_loss(tmp_path, "gkd", fields)


def step_loss(place: Path, method: str, fields: dict[str, Any]) -> float:
    run, student = made(spec_of(place, method, **{"max_new_tokens": 8, **fields}))
    batches = learnt(student, [all_rows(run)])
    return round(sum(loss_of(student, batch)[0].item() for batch in batches), 7)


@pytest.mark.parametrize(
    "fields",
    [
        {"samples": 2},
        {"max_new_tokens": 3},
        {"teacher_mix": 0.0},
        {"single_step": False},
        {"length_normalization": False},
        {"discount": 0.5},
        {"clip": 0.01},
    ],
    ids=str,
)
def test_no_dead_option_of_minillm(tmp_path: Path, fields: dict[str, Any]) -> None:
    assert step_loss(tmp_path, "minillm", {}) != step_loss(tmp_path, "minillm", fields)


def test_minillms_text_is_learnt_beside_by_its_own_count(tmp_path: Path) -> None:
    (tmp_path / "text.jsonl").write_text('{"text": "w1 \u2028 w2 w3"}\n{"text": "w4 w5"}\n')
    (tmp_path / "bad.jsonl").write_text('{"tokens": 1}\n')
    fields = {"text": str(tmp_path / "text.jsonl"), "text_weight": 0.7, "max_new_tokens": 8}
    run, student = made(spec_of(tmp_path, "minillm", **fields))
    answers, text = learnt(student, [all_rows(run)])
    assert (answers.share, text.share, len(text.rows)) == ("main", "text", 4)
    expected = 0.7 * cross_entropy(dense(run.model, text), kept_targets(text)).mean()
    assert loss_of(student, text)[0].item() == pytest.approx(expected.item(), rel=1e-5)
    with pytest.raises(BadInput, match=r"bad.jsonl line 1 is no text"):
        made(spec_of(tmp_path, "minillm", text=str(tmp_path / "bad.jsonl")))
    with pytest.raises(BadInput, match="can't be read"):
        made(spec_of(tmp_path, "minillm", text=str(tmp_path / "none.txt")))


def test_minillms_columns_by_hand(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, "minillm", discount=1.0, length_normalization=False)
    one = Sample(0, [5, 6], drawn_from=[-1.0, -2.0], student=[-1.5, -2.0], teacher=[-0.5, -4.0])
    columns = columns_of(spec, [one, one])  # type: ignore[arg-type]
    assert columns["advantage"].tolist() == [-2.0, 0.0, -2.0, 0.0]
    assert columns["old_logprob"].tolist() == [-1.5, -2.0] * 2
    assert columns["importance"].tolist() == pytest.approx([0.60653, 1.0] * 2, abs=1e-4)


def test_minillms_loss_is_its_formula(tmp_path: Path) -> None:
    """w KL(q || p) - min(w R, clip(w) R), by the whole logits: the student is the one that drew."""
    run, student = made(spec_of(tmp_path, "minillm", teacher_mix=0.6, max_new_tokens=8))
    (batch,) = learnt(student, [all_rows(run)])
    w, ahead = batch.columns["importance"], batch.columns["advantage"]
    log_q, log_p = (
        dense(model, batch).log_softmax(-1)
        for model in (run.model, load_model(tmp_path / "teacher"))
    )
    exact = (log_q.exp() * (log_q - log_p)).sum(-1)
    policy = torch.minimum(w * ahead, w.clamp(0.8, 1.2) * ahead)
    loss, metrics = loss_of(student, batch)
    assert loss.item() == pytest.approx((w * exact - policy).mean().item(), rel=1e-3)
    assert metrics["reverse_kl"].item() == pytest.approx((w * exact).mean().item(), rel=1e-3)
    assert (w * exact).mean().item() != pytest.approx(exact.mean().item(), rel=1e-2)


@pytest.mark.parametrize("method", ["gkd", "minillm"])
def test_dropout_is_off_while_answers_are_drawn_and_on_again_behind(
    tmp_path: Path, method: str
) -> None:
    save_model(tmp_path / "student", make_model(attention_dropout=0.9))
    save_model(tmp_path / "teacher", make_model(1))
    run, student = made(spec_of(tmp_path, method, max_new_tokens=8, samples=2))
    student.train()
    drawn = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        drawn.append(learnt(student, [all_rows(run)])[0].input_ids.tolist())
    assert drawn[0] == drawn[1]
    assert student.model.training


@pytest.mark.parametrize("method", ["gkd", "minillm"])
def test_answers_end_at_the_context(tmp_path: Path, method: str) -> None:
    """Each at its own: a long prompt shortens no other's answer."""
    long = make_record(9, " ".join(["w1"] * 56), "w2")
    spec = spec_of(tmp_path, method, max_new_tokens=500)
    run, student = made(spec, [*make_records(6), long])
    (batch,) = learnt(student, [all_rows(run)])
    assert batch.input_ids.shape[1] <= 64
    lengths = {row.row: row.completion_tokens for row in batch.rows}
    assert lengths.pop("r9") <= 5
    assert max(lengths.values()) > 5


def test_an_answer_that_does_not_end_fills_its_own_context() -> None:
    drawing = Drawing(12, samples=2, max_length=15)
    samples = draw(make_model(), PROMPTS, drawing, frozenset(), even(6, 12))
    assert [len(one.ids) for one in samples] == [12, 12, 12, 12, 10, 10]
    free = draw(make_model(), PROMPTS, Drawing(12, samples=2), frozenset(), even(6, 12))
    assert [one.ids for one in samples[:4]] == [one.ids for one in free[:4]]
    assert samples[4].ids == free[4].ids[:10]


def test_rows_leave_a_recurrent_models_batch_too() -> None:
    model, ends = recurrent(), frozenset(range(3, 61, 5))
    alone = [answer_greedily(model, [prompt], 12, 1, ends) for prompt in PROMPTS]
    together = answer_greedily(model, PROMPTS, 12, 3, ends)
    assert together.ids == tuple(one.ids[0] for one in alone)
    assert len({len(ids) for ids in together.ids}) > 1
    cold = draw(model, PROMPTS, Drawing(12, 1e-4, samples=2), ends, even(6, 12))
    assert [
        tuple(one.ids[: len(ids)]) for one, ids in zip(cold[::2], together.ids, strict=True)
    ] == list(together.ids)


def test_a_text_that_isnt_there_is_said_before_weights_are_read(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, "minillm", text=str(tmp_path / "none.txt"))
    (tmp_path / "student/model.safetensors").write_bytes(b"none")
    with pytest.raises(BadInput, match="can't be read as UTF-8 text"):
        made(spec)
    (tmp_path / "none.txt").write_text("\n \n")
    with pytest.raises(BadInput, match="holds no text"):
        made(spec)
