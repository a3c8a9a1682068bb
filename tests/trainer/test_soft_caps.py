"""Models that cap logits and attention scores softly, and see a window alone in some layers: Gemma
2 (arXiv:2408.00118), and Mistral for its window."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GraniteConfig, GraniteForCausalLM

from tests.trainer.compress.families import SHAPE, make
from tests.trainer.conftest import make_records, make_tokenizer
from tests.trainer.methods.made import all_rows, loss_of, made, spec_of
from trainer.batch import pack, pad
from trainer.errors import BadInput
from trainer.loading import load_model
from trainer.preparation import Prepared
from trainer.student import Student, check_head


def student_of(place: Path, family: str, method: str, **fields: Any) -> tuple[Prepared, Student]:
    """In fp64, as is the teacher, which caps its logits at 2."""
    tokens = {"vocab_size": len(make_tokenizer())}
    for name, model in (
        ("student", make(family, **tokens, **fields)),
        ("teacher", make("gemma2", 1, **tokens, final_logit_softcapping=2.0)),
    ):
        model.save_pretrained(place / name)
        make_tokenizer().save_pretrained(place / name)
    run, student = made(spec_of(place, method), make_records(9))
    return run, student.double()


@pytest.mark.parametrize("cap", [0.5, 30.0])
def test_the_loss_is_transformers_own_with_its_gradient(tmp_path: Path, cap: float) -> None:
    run, student = student_of(tmp_path, "gemma2", "sequence_level", final_logit_softcapping=cap)
    batch = all_rows(run)
    labels = batch.input_ids.masked_fill(~batch.completion_mask, -100)
    weights = list(student.model.parameters())
    losses = (loss_of(student, batch)[0], dense_loss(student, batch.input_ids, labels))
    found, expected = ([loss, *torch.autograd.grad(loss, weights)] for loss in losses)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


def dense_loss(student: Student, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy by the model's own logits; transformers' loss function itself narrows to
    fp32."""
    logits = student.model(input_ids=ids).logits[:, :-1].flatten(0, 1)
    return torch.nn.functional.cross_entropy(logits, labels[:, 1:].flatten())


def test_a_divergence_is_of_both_models_own_logits(tmp_path: Path) -> None:
    run, student = student_of(tmp_path, "gemma2", "kd", final_logit_softcapping=0.5)
    batch, teacher = all_rows(run), load_model(tmp_path / "teacher")
    with torch.no_grad():
        q, p = (
            m(input_ids=batch.input_ids).logits[:, :-1][batch.completion_mask[:, 1:]]
            for m in (student.model, teacher)
        )
        p, q = p.double().log_softmax(-1), q.log_softmax(-1)
    expected = (p.exp() * (p - q)).sum(-1).mean()
    assert loss_of(student, batch)[1]["forward_kl"].item() == pytest.approx(float(expected), 1e-6)


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
@pytest.mark.parametrize("family", ["gemma2", "mistral"])
def test_packed_rows_see_their_window_alone(tmp_path: Path, family: str, kernel: str) -> None:
    run, student = student_of(tmp_path, family, "sequence_level", sliding_window=4)
    run.model.set_attn_implementation(kernel)
    packed, padded = pack(run.rows.rows, 40), pad(run.rows.rows)
    assert packed.input_ids.shape[0] < len(run.rows.rows)
    values = [loss_of(student, batch)[0].item() for batch in (packed, padded)]
    assert values[0] == pytest.approx(values[1], rel=1e-10)


def test_attention_scores_are_capped_though_sdpa_would_not(tmp_path: Path) -> None:
    model = make("gemma2", attn_logit_softcapping=0.2)
    model.save_pretrained(tmp_path)
    model.set_attn_implementation("eager")
    ids = torch.arange(1, 30)[None]
    with torch.no_grad():
        torch.testing.assert_close(load_model(tmp_path)(ids).logits, model(ids).logits)


def test_a_model_that_scales_its_logits_is_refused() -> None:
    model = GraniteForCausalLM(GraniteConfig(**SHAPE, logits_scaling=1.001))
    with pytest.raises(BadInput, match="changes its logits after the head"):
        check_head(model.eval())
