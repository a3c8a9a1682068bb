"""What each method needs, and its refusals."""

from pathlib import Path
from typing import get_args

import pytest
import torch

from prompts.record import Kind
from tests.trainer.conftest import TEMPLATE, make_model, make_records, make_tokenizer, save_model
from trainer.data import collate, encode
from trainer.errors import BadInput
from trainer.events import silent
from trainer.methods import METHODS, check_vocabularies, select_all, select_rationales
from trainer.objectives import forward_kl
from trainer.spec import ForwardKL, TrainSpec
from trainer.student import Student, check_head


def test_every_method_of_the_spec_is_there_and_no_other() -> None:
    union = get_args(get_args(TrainSpec)[0])
    named = {get_args(spec.model_fields["method"].annotation)[0] for spec in union}
    assert METHODS.keys() == named


def test_rationales_are_chosen_from_a_mixed_dataset() -> None:
    mixed = make_records(3) + make_records(2, Kind.IF)
    assert [row.kind for row in select_rationales(mixed)] == [Kind.COT] * 3
    assert len(select_all(mixed)) == 5


def test_rationale_then_answer_without_rationales_is_refused() -> None:
    with pytest.raises(BadInput, match=r"kind if.*use sequence_level"):
        select_rationales(make_records(2, Kind.IF))
    bare = [row.model_copy(update={"reasoning": None}) for row in make_records(2)]
    with pytest.raises(BadInput, match="chain-of-thought"):
        select_rationales(bare)


def test_cut_completions_are_left_out_and_nothing_else_left_is_refused() -> None:
    rows = make_records(3)
    cut = [rows[0].model_copy(update={"finish_reason": "length"}), *rows[1:]]
    assert select_all(cut) == rows[1:]
    with pytest.raises(BadInput, match="no row to train on"):
        select_all(cut[:1])
    with pytest.raises(BadInput, match="no row to train on"):
        select_all([])


def test_equal_sizes_with_other_tokens_are_refused_by_name() -> None:
    theirs = make_tokenizer()
    swapped = theirs.get_vocab()
    ours = make_tokenizer()
    state = ours.backend_tokenizer.to_str().replace('"w7"', '"other"')
    ours = type(ours)(tokenizer_object=type(ours.backend_tokenizer).from_str(state))
    assert len(ours.get_vocab()) == len(swapped)
    with pytest.raises(BadInput, match=r"2 tokens differ.*'other' \(14, None\)"):
        check_vocabularies(ours, theirs)


def test_other_special_tokens_are_refused_and_the_pad_does_not_matter() -> None:
    ours, theirs = make_tokenizer(), make_tokenizer()
    theirs.eos_token = "<assistant>"
    with pytest.raises(BadInput, match="different special tokens"):
        check_vocabularies(ours, theirs)
    check_vocabularies(make_tokenizer(pad="<end>"), make_tokenizer())


def kl_spec(teacher: Path, weight: float = 0.0, tau: float = 1.0) -> ForwardKL:
    return ForwardKL(
        method="forward_kl",
        student="-",
        teacher=str(teacher),
        kd_temperature=tau,
        cross_entropy_weight=weight,
    )


def test_a_teacher_with_another_template_is_a_warning(tmp_path: Path) -> None:
    other = make_tokenizer(TEMPLATE + " ")
    teacher = save_model(tmp_path, make_model(1), other)
    heard: list[str] = []
    make = METHODS["forward_kl"].objective
    make(kl_spec(teacher), make_model(), make_tokenizer(), lambda event, _: heard.append(event))
    assert "warning" in heard


@pytest.mark.parametrize(("weight", "tau"), [(0.0, 1.0), (0.25, 1.0), (0.25, 3.0)])
def test_the_students_loss_is_the_dense_one(tmp_path: Path, weight: float, tau: float) -> None:
    """Against whole logits of both models, over whole [B, T, V]."""
    teacher = save_model(tmp_path, make_model(1))
    model, tokenizer = make_model(), make_tokenizer()
    objective = METHODS["forward_kl"].objective(
        kl_spec(teacher, weight, tau), model, tokenizer, silent
    )
    batch = collate(encode(make_records(6), tokenizer, 100, frozenset({3})).rows)
    loss, metrics = Student(model, objective)(**batch, count=7.0)
    with torch.no_grad():
        ours = model(input_ids=batch["input_ids"]).logits[:, :-1]
        theirs = make_model(1)(input_ids=batch["input_ids"]).logits[:, :-1]
    mask, targets = batch["completion_mask"][:, 1:], batch["input_ids"][:, 1:]
    kl = (forward_kl(ours, theirs, tau) * mask).sum() / 7
    log_q = torch.log_softmax(ours, -1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    expected = (1 - weight) * kl - weight * (log_q * mask).sum() / 7
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert metrics["forward_kl"].item() == pytest.approx(kl.item(), rel=1e-5)
    assert ("cross_entropy" in metrics) == (weight > 0)


def test_padding_changes_nothing() -> None:
    """The same rows, alone and beside a longer one."""
    tokenizer = make_tokenizer()
    rows = encode(make_records(5), tokenizer, 100, frozenset({3})).rows
    student = Student(make_model(), METHODS["sequence_level"].objective(None, None, None, silent))  # type: ignore[arg-type]
    alone = sum(student(**collate([row]), count=1.0)[0].item() for row in rows)
    together = student(**collate(rows), count=1.0)[0].item()
    assert together == pytest.approx(alone, rel=1e-5)


@pytest.mark.parametrize("cap", [0.5, 30.0])
def test_a_model_that_caps_its_logits_is_refused(cap: float) -> None:
    from transformers import Gemma2Config, Gemma2ForCausalLM

    torch.manual_seed(0)
    shape = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16}
    model = Gemma2ForCausalLM(
        Gemma2Config(**shape, **heads, final_logit_softcapping=cap, initializer_range=0.5)
    )
    with pytest.raises(BadInput, match="changes its logits after the head"):
        check_head(model.eval())
