"""The student in training: one module whose forward holds every use of its weights.

B batch, T tokens, V vocabulary, D width, K kept positions.
"""

import contextlib
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from trainer.errors import BadInput
from trainer.objectives import Head, Term, head_loss, keep


class Objective(Protocol):
    """What a method asks of the student, batch by batch."""

    def terms(
        self, input_ids: Tensor, completion_mask: Tensor, targets: Tensor
    ) -> dict[str, tuple[float, Term]]:
        """Weighted terms over the K kept positions; [B, T], [B, T], [K]."""


class Student(nn.Module):
    """Wraps the model that is trained. Its forward makes the loss too, head product included:
    a loss that reached for the weights from outside would bypass the hooks by which DDP and FSDP
    gather them."""

    def __init__(
        self,
        model: PreTrainedModel,
        objective: Objective,
        precision: Literal["fp32", "bf16"] = "fp32",
    ) -> None:
        super().__init__()
        check_head(model)
        self.model = model
        self.objective = objective
        self._precision = precision

    def forward(
        self, input_ids: Tensor, completion_mask: Tensor, count: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss over `count` kept tokens (of the whole effective batch), and its terms.

        [B, T], [B, T] -> scalar, scalars without gradients.
        """
        with autocast(input_ids.device.type, self._precision):
            hidden = last_hidden(self.model, input_ids)
            kept, targets = keep(hidden, input_ids, completion_mask)
            terms = self.objective.terms(input_ids, completion_mask, targets)
            return head_loss(kept, head_of(self.model), terms, count)


def last_hidden(model: PreTrainedModel, input_ids: Tensor) -> Tensor:
    """[B, T] -> [B, T, D], before the head.

    No attention mask: rows are padded on the right, and a causal model's positions see nothing
    to their right; without one the attention kernel takes its fast causal path.
    """
    hidden: Tensor = model.base_model(input_ids=input_ids, use_cache=False).last_hidden_state
    return hidden


def head_of(model: PreTrainedModel) -> Head:
    """The model's head; BadInput where it isn't one linear map."""
    linear = model.get_output_embeddings()
    if not isinstance(linear, nn.Linear):
        raise BadInput(
            f"{type(model).__name__} has no plain linear head",
            "Its head can't be applied to some positions at a time. Take a dense causal model.",
        )
    return Head(linear.weight, linear.bias)


def check_head(model: PreTrainedModel) -> None:
    """Refuse architectures that do more than the head (soft caps, scales) to make logits."""
    # Not token 0: it often is the pad, whose embedding may be zero, as any function of it then.
    probe = torch.arange(1, 9, device=model.device).unsqueeze(0) % model.config.vocab_size
    with torch.no_grad():
        plain = head_of(model).logits(last_hidden(model, probe))
        logits = model(input_ids=probe, use_cache=False).logits
    if not torch.allclose(plain.float(), logits.float(), rtol=1e-2, atol=1e-3) or _scaled(model):
        raise BadInput(
            f"{type(model).__name__} changes its logits after the head",
            "Losses here are made from the last hidden state and the head alone. Take an "
            "architecture without logit scaling or soft caps, as Llama or Qwen are.",
        )


def _scaled(model: PreTrainedModel) -> bool:
    """A soft cap at 30 hardly shows on a probe; configurations name it."""
    config = model.config.get_text_config().to_dict()
    names = ("final_logit_softcapping", "logit_scale", "logits_scaling")
    return any(config.get(name) not in (None, 1, 1.0) for name in names)


def autocast(
    device: str, precision: Literal["fp32", "bf16"]
) -> contextlib.AbstractContextManager[object]:
    """bf16 autocast, or nothing."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device, dtype=torch.bfloat16)
