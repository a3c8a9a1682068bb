"""What each method needs, and its refusals."""

from pathlib import Path
from typing import get_args

import pytest
from pydantic import ValidationError

from prompts.record import Kind
from tests.trainer.conftest import TEMPLATE, make_model, make_records, make_tokenizer, save_model
from tests.trainer.methods.made import all_rows, dense, kept_targets, loss_of, made, spec_of
from tests.trainer.objectives.cases import CASES, Case
from trainer.batch import pad
from trainer.errors import BadInput
from trainer.events import silent
from trainer.loading import load_model
from trainer.methods import METHODS, check_vocabularies
from trainer.methods.selection import select_all, select_rationales
from trainer.objectives import cross_entropy, forward_kl, on_logits
from trainer.preparation import prepare
from trainer.spec import RationaleThenAnswer, TrainSpec

COT = RationaleThenAnswer(method="rationale_then_answer", student="-")


def test_every_method_of_the_spec_is_there_and_no_other() -> None:
    union = get_args(get_args(TrainSpec)[0])
    named = {get_args(spec.model_fields["method"].annotation)[0] for spec in union}
    assert METHODS.keys() == named


def test_rationales_are_chosen_from_a_mixed_dataset() -> None:
    mixed = make_records(3) + make_records(2, Kind.IF)
    assert [row.kind for row in select_rationales(COT, mixed)] == [Kind.COT] * 3
    assert len(select_all(COT, mixed)) == 5


def test_rationale_then_answer_without_rationales_is_refused() -> None:
    with pytest.raises(BadInput, match=r"kind if.*use sequence_level"):
        select_rationales(COT, make_records(2, Kind.IF))
    bare = [row.model_copy(update={"reasoning": None}) for row in make_records(2)]
    with pytest.raises(BadInput, match="chain-of-thought"):
        select_rationales(COT, bare)


def test_cut_completions_are_left_out_and_nothing_else_left_is_refused() -> None:
    rows = make_records(3)
    cut = [rows[0].model_copy(update={"finish_reason": "length"}), *rows[1:]]
    assert select_all(COT, cut) == rows[1:]
    with pytest.raises(BadInput, match="no row to train on"):
        select_all(COT, cut[:1])
    with pytest.raises(BadInput, match="no row to train on"):
        select_all(COT, [])


def test_equal_sizes_with_other_tokens_are_refused_by_name() -> None:
    theirs = make_tokenizer()
    swapped = theirs.get_vocab()
    ours = make_tokenizer()
    state = ours.backend_tokenizer.to_str().replace('"w7"', '"other"')
    ours = type(ours)(tokenizer_object=type(ours.backend_tokenizer).from_str(state))
    assert len(ours.get_vocab()) == len(swapped)
    with pytest.raises(BadInput, match=r"2 tokens differ.*'other' \(14, None\)"):
        check_vocabularies(ours, theirs)


def test_vocabularies_are_compared_before_any_weights_are_loaded(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, "forward_kl")
    for side in ("student", "teacher"):
        (tmp_path / side / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(BadInput, match="can't be loaded"):
        made(spec)
    tokenizer = make_tokenizer()
    tokenizer.add_tokens(["extra"])
    tokenizer.save_pretrained(tmp_path / "teacher")
    with pytest.raises(BadInput, match="different vocabularies"):
        made(spec)


def test_other_special_tokens_are_refused_and_the_pad_does_not_matter() -> None:
    ours, theirs = make_tokenizer(), make_tokenizer()
    theirs.eos_token = "<assistant>"
    with pytest.raises(BadInput, match="different special tokens"):
        check_vocabularies(ours, theirs)
    check_vocabularies(make_tokenizer(pad="<end>"), make_tokenizer())


def test_a_teacher_with_another_template_is_a_warning(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, "forward_kl")
    save_model(tmp_path / "teacher", make_model(1), make_tokenizer(TEMPLATE + " "))
    heard: list[str] = []
    prepare(spec, make_records(2), [], lambda event, said: heard.append(str(said)))
    assert any("different chat templates" in said for said in heard)


@pytest.mark.parametrize("method", ["forward_kl", "kd"])
@pytest.mark.parametrize(("weight", "tau"), [(0.0, 1.0), (0.25, 1.0), (0.25, 3.0), (1.0, 1.0)])
def test_the_students_loss_is_the_dense_one(
    tmp_path: Path, method: str, weight: float, tau: float
) -> None:
    """Against whole logits of both models, over whole [B, T, V]."""
    spec = spec_of(tmp_path, method, cross_entropy_weight=weight, kd_temperature=tau)
    run, student = made(spec)
    batch = all_rows(run)
    loss, metrics = loss_of(student, batch, 7.0)
    ours, theirs = dense(run.model, batch), dense(load_model(tmp_path / "teacher"), batch)
    kl = forward_kl(ours, theirs, tau).sum() / 7
    hard = cross_entropy(ours, kept_targets(batch)).sum() / 7
    assert loss.item() == pytest.approx(((1 - weight) * kl + weight * hard).item(), rel=1e-5)
    assert metrics.get("forward_kl", kl).item() == pytest.approx(kl.item(), rel=1e-5)
    assert metrics.keys() - {"entropy"} == {
        name for name, share in (("forward_kl", 1 - weight), ("cross_entropy", weight)) if share > 0
    }


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_kd_takes_every_divergence(tmp_path: Path, case: Case) -> None:
    run, student = made(spec_of(tmp_path, "kd", divergence=case.fields, kd_temperature=2.0))
    batch = all_rows(run)
    ours, theirs = dense(run.model, batch), dense(load_model(tmp_path / "teacher"), batch)
    expected = on_logits(case.divergence, ours, theirs, 2.0).mean()
    assert loss_of(student, batch)[0].item() == pytest.approx(expected.item(), rel=1e-4)


def test_padding_changes_nothing(tmp_path: Path) -> None:
    """The same rows, alone and beside a longer one."""
    run, student = made(spec_of(tmp_path, "forward_kl"))
    alone = sum(loss_of(student, pad([row]), 1.0)[0].item() for row in run.rows.rows)
    assert loss_of(student, all_rows(run), 1.0)[0].item() == pytest.approx(alone, rel=1e-5)


def test_kd_without_anything_to_compare_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="features are needed"):
        spec_of(tmp_path, "kd", divergence=None)


def test_confidence_weighs_rows_and_its_lack_is_refused(tmp_path: Path) -> None:
    """By the count of all kept tokens still: a doubtful row pulls less, no other pulls more."""
    sure = [
        row.model_copy(update={"confidence": share})
        for row, share in zip(make_records(3), (1.0, 0.5, 0.0), strict=True)
    ]
    spec = spec_of(tmp_path, "sequence_level", weight_by="confidence")
    run, student = made(spec, sure)
    plain = [loss_of(student, pad([row]), 1.0)[0].item() for row in run.rows.rows]
    whole = made(spec_of(tmp_path, "sequence_level"), sure)[0].rows.rows
    each = [loss_of(student, pad([row]), 1.0)[0].item() for row in whole]
    assert plain == pytest.approx([each[0], 0.5 * each[1], 0.0], rel=1e-5)
    assert loss_of(student, all_rows(run), 9.0)[0].item() == pytest.approx(sum(plain) / 9)
    with pytest.raises(BadInput, match="weight_by confidence: rows carry none"):
        made(spec, make_records(2))


def test_validation_rows_weigh_the_same(tmp_path: Path) -> None:
    """They needn't say how much: a validation loss is compared with other runs'."""
    sure = [row.model_copy(update={"confidence": 0.5}) for row in make_records(3)]
    spec = spec_of(tmp_path, "sequence_level", weight_by="confidence")
    run = prepare(spec, sure, make_records(2), silent)
    assert {row.weight for row in run.rows.rows} == {0.5}
    assert [row.weight for row in run.validation.rows] == [1.0, 1.0]
