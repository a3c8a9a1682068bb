"""The student in training: one module whose forward holds every use of its weights.

B batch, T tokens, V vocabulary, D width, K kept positions.
"""

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trainer.batch import Batch, positions, sees
from trainer.errors import BadInput
from trainer.objectives import Head, Term, entropy_term, head_loss, keep, weighted

Projection = tuple[int, Literal["q_proj", "k_proj", "v_proj"]]
"""One of an attention layer's linears, by the layer's number."""


@dataclass(frozen=True)
class Seen:
    """What a forward pass up to the head has made."""

    hidden: Tensor
    """[B, T, D] before the head."""
    layers: tuple[Tensor, ...] = ()
    """[B, T, D] each, the embeddings first; empty unless they were asked for."""
    projections: dict[Projection, Tensor] = field(default_factory=dict)
    """[B, T, W] each, of those that were asked for."""


@dataclass(frozen=True)
class Look:
    """What a forward pass should keep beside its last hidden states."""

    layers: bool = False
    projections: tuple[Projection, ...] = ()


PLAIN = Look()
WATCHED: dict[str, Term] = {"entropy": entropy_term}
"""Measured on the tokens that a step learns, where a loss makes logits anyway."""


@dataclass(frozen=True)
class Losses:
    """What is to be made small: terms through the head, and sums over kept positions that need
    none, each with its weight."""

    terms: dict[str, tuple[float, Term]] = field(default_factory=dict)
    sums: dict[str, tuple[float, Tensor]] = field(default_factory=dict)


@dataclass(frozen=True)
class Moment:
    """When a step happens: all that chance in it depends on."""

    step: int
    seed: int
    rank: int
    ranks: int = 1

    def generator(self, purpose: int) -> torch.Generator:
        """Random numbers of this step: a function of the moment, so that a resumed run draws
        what it would have drawn."""
        entropy = np.random.SeedSequence([self.seed, self.step, self.rank, purpose])
        return torch.Generator().manual_seed(int(entropy.generate_state(1, np.uint64)[0]))

    def chances(self, names: Sequence[str], each: int, length: int) -> Tensor:
        """[len(names) * each, length] even numbers between 0 and 1, of each name its own: neither
        its rank nor what shares its batch matters."""
        drawn = np.empty((len(names) * each, length))
        for place, name in enumerate(names):
            key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
            for sample in range(each):
                entropy = np.random.SeedSequence([self.seed, self.step, key, sample])
                generator = np.random.Generator(np.random.PCG64(entropy))
                drawn[place * each + sample] = generator.random(length)
        return torch.from_numpy(drawn)


Wrapped = Callable[[Callable[["Student"], Any]], Any]
"""The student as DDP or FSDP wrap it: `wrapped(task)` runs a task within its forward."""
Passes = Callable[[Wrapped, list[Batch], Moment], list[Batch]]
"""(student, the step's batches, when) -> what the step learns from instead."""


@dataclass(frozen=True)
class Objective:
    """What a method asks of the student."""

    losses: Callable[[Seen, Tensor, Batch], Losses]
    """(what the student made, targets [K], batch); called within the student's forward."""
    passes: Passes | None = None
    """None: the step's rows as they are."""
    look: Look = PLAIN
    learned: nn.Module | None = None
    """Parameters that are trained beside the student's and thrown away with the run."""


class Student(nn.Module):
    """Wraps the model that is trained. Whatever uses its weights is a task that its forward runs,
    head product and sampling included: what reached for the weights from outside would bypass the
    hooks by which DDP and FSDP gather them."""

    def __init__(
        self,
        model: PreTrainedModel,
        objective: Objective,
        precision: Literal["fp32", "bf16"] = "fp32",
    ) -> None:
        super().__init__()
        check_head(model)
        self.model = model
        self.learned = objective.learned
        self.objective = objective
        self._precision = precision
        self._no_split_modules = model._no_split_modules
        """By this name accelerate asks which layers FSDP gathers one at a time."""

    def forward(self, task: Callable[["Student"], Any]) -> Any:
        """The task's result."""
        with autocast(self.model.device.type, self._precision):
            return task(self)

    def loss(self, batch: Batch, count: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss over `count` kept tokens (of the whole effective batch), and its terms: a scalar,
        scalars without gradients. For tasks."""
        seen = look(self.model, batch, self.objective.look)
        kept, targets = keep(seen.hidden, batch.input_ids, batch.completion_mask)
        made = self.objective.losses(seen, targets, batch)
        weights = batch.weights
        terms = {name: (w, weighted(term, weights)) for name, (w, term) in made.terms.items()}
        total, metrics = kept.sum() * 0, dict[str, Tensor]()
        if terms:
            watched = WATCHED if batch.share == "main" else None
            total, metrics = head_loss(kept, head_of(self.model), terms, count, watched=watched)
        for name, (weight, value) in made.sums.items():
            total = total + weight * value / count
            metrics[name] = value.detach() / count
        return total, metrics


@contextlib.contextmanager
def gathered(model: PreTrainedModel) -> Iterator[None]:
    """Within, the layers of a student under FSDP2 hold their whole weights.

    Generation runs in this: ranks' answers differ in length, and a layer that gathers its weights
    in each forward waits for as many forwards of every other rank. For every rank to enter.
    """
    parts = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            part.set_reshard_after_forward(True, recurse=False)
            part.reshard()


def look(model: PreTrainedModel, batch: Batch, wanted: Look = PLAIN) -> Seen:
    """A forward pass up to the head. Packed rows see themselves alone.

    No attention mask without packing: rows are padded on the right, and a causal model's
    positions see nothing to their right; without one the kernel takes its fast causal path.
    """
    layout: dict[str, Any] = {}
    if batch.segments is not None:
        layout = {
            "attention_mask": block_masks(model, batch.segments),
            "position_ids": positions(batch.segments),
        }
    with _kept_projections(model, wanted.projections) as projections:
        made = model.base_model(
            input_ids=batch.input_ids,
            use_cache=False,
            output_hidden_states=wanted.layers,
            **layout,
        )
    return Seen(made.last_hidden_state, tuple(made.hidden_states or ()), projections)


def last_hidden(model: PreTrainedModel, input_ids: Tensor) -> Tensor:
    """[B, T] -> [B, T, D], before the head; rows padded on the right."""
    hidden: Tensor = model.base_model(input_ids=input_ids, use_cache=False).last_hidden_state
    return hidden


def block_masks(model: PreTrainedModel, segments: Tensor) -> Tensor | dict[str, Tensor]:
    """[B, T] -> [B, 1, T, T]; within the window of layers that have one."""
    config, allowed = model.config.get_text_config().to_dict(), sees(segments)[:, None]
    window, kinds = config.get("sliding_window"), config.get("layer_types")
    whole = _as_mask(model, allowed)
    if window is None:
        return whole
    near = _as_mask(model, allowed.triu(1 - window))
    return {"full_attention": whole, "sliding_attention": near} if kinds else near


def _as_mask(model: PreTrainedModel, allowed: Tensor) -> Tensor:
    """BadInput for kernels that take no such mask."""
    kernel = model.config._attn_implementation
    if kernel == "sdpa":
        return allowed
    if kernel == "eager":
        blocked = torch.zeros_like(allowed, dtype=model.dtype)
        return blocked.masked_fill(~allowed, torch.finfo(model.dtype).min)
    raise BadInput(
        f"packing needs another attention than {kernel}",
        "Rows are kept apart by a mask, for sdpa and eager attention. Set optimization.packing to "
        "false, or the model's attn_implementation to sdpa.",
    )


@contextlib.contextmanager
def _kept_projections(
    model: PreTrainedModel, wanted: tuple[Projection, ...]
) -> Iterator[dict[Projection, Tensor]]:
    kept: dict[Projection, Tensor] = {}
    hooks = []
    for projection in wanted:
        layer, name = projection

        def keep_it(
            module: nn.Module, given: Any, made: Tensor, at: Projection = projection
        ) -> None:
            kept[at] = made

        linear = model.base_model.get_submodule(f"layers.{layer}.self_attn.{name}")
        hooks.append(linear.register_forward_hook(keep_it))
    try:
        yield kept
    finally:
        for hook in hooks:
            hook.remove()


def head_of(model: PreTrainedModel) -> Head:
    """The model's head with its soft cap; BadInput where it isn't one linear map."""
    linear = model.get_output_embeddings()
    if not isinstance(linear, nn.Linear):
        raise BadInput(
            f"{type(model).__name__} has no plain linear head",
            "Its head can't be applied to some positions at a time. Take a dense causal model.",
        )
    return Head(linear.weight, linear.bias, soft_cap(model))


def soft_cap(model: PreTrainedModel) -> float | None:
    """Of a model's logits; None for most."""
    cap: float | None = model.config.get_text_config().to_dict().get("final_logit_softcapping")
    return cap


def check_size(side: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """BadInput where a model's head knows fewer tokens than its tokenizer."""
    rows = head_of(model).weight.shape[0]
    tokens = max(tokenizer.get_vocab().values(), default=-1) + 1  # ids may have gaps
    if rows < tokens:
        raise BadInput(
            f"the {side}'s head has fewer rows than the tokenizer has tokens",
            f"{rows} against {tokens}. Resize its embeddings and save it again.",
        )


def known_tokens(tokenizer: PreTrainedTokenizerBase, *models: PreTrainedModel) -> int:
    """Ids below it are tokens that every head has. Heads are often padded to a round number of
    rows, of which each model of a family has its own."""
    heads = (head_of(model).weight.shape[0] for model in models)
    return min(max(tokenizer.get_vocab().values()) + 1, *heads)


def check_head(model: PreTrainedModel) -> None:
    """Refuse architectures that do more than head and soft cap (scales) to make logits."""
    # Not token 0: it often is the pad, whose embedding may be zero, as any function of it then.
    probe = torch.arange(1, 9, device=model.device).unsqueeze(0) % model.config.vocab_size
    with torch.no_grad():
        plain = head_of(model).logits(last_hidden(model, probe))
        logits = model(input_ids=probe, use_cache=False).logits
    if not torch.isfinite(logits).all():
        raise BadInput(
            f"{type(model).__name__} gives outputs that are not finite",
            "Its activations overflow. Load it in fp32 or bf16, or look at its weights.",
        )
    if not torch.allclose(plain.float(), logits.float(), rtol=1e-2, atol=1e-3) or _scaled(model):
        raise BadInput(
            f"{type(model).__name__} changes its logits after the head",
            "Losses here know soft caps and no other change. Take an architecture without logit "
            "scaling, as Llama, Qwen or Gemma are.",
        )


def _scaled(model: PreTrainedModel) -> bool:
    """A scale near 1 hardly shows on a probe; configurations name it."""
    config, names = model.config.get_text_config().to_dict(), ("logit_scale", "logits_scaling")
    return any(config.get(name) not in (None, 1) for name in names)


def autocast(
    device: str, precision: Literal["fp32", "bf16"]
) -> contextlib.AbstractContextManager[object]:
    """bf16 autocast, or nothing."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device, dtype=torch.bfloat16)
