"""A decoder without some of its units: sliced weights in a smaller model of the same class.

D width, F feed-forward width, H query heads, G groups, h head size; a prime marks what is left.
"""

import copy
from dataclasses import dataclass

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from trainer.compress.activations import remove, run_until_reached, stopping
from trainer.compress.anatomy import Anatomy, has_offset
from trainer.errors import BadInput

State = dict[str, Tensor]


@dataclass(frozen=True)
class Kept:
    """Rising indices of what stays; for each layer, but one set of hidden units for all."""

    feed_forward: tuple[Tensor, ...]
    heads: tuple[Tensor, ...]
    """Query heads, by group."""
    groups: tuple[Tensor, ...]
    hidden: Tensor


def cut(model: PreTrainedModel, anatomy: Anatomy, kept: Kept) -> PreTrainedModel:
    """The smaller model; equal to the model with the other units' outputs set to zero.

    Raises BadInput where hidden units go from a model whose norms aren't RMS norms, and where the
    configuration can't say the new sizes.
    """
    state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    for index in range(anatomy.depth):
        _cut_feed_forward(state, anatomy, index, kept.feed_forward[index])
        _cut_heads(state, anatomy, index, kept.heads[index], kept.groups[index])
    if len(kept.hidden) < anatomy.hidden:
        _cut_hidden(model, state, anatomy, kept.hidden)
    made = _build(model, anatomy, kept, state)
    if len(kept.hidden) < anatomy.hidden:
        _mend_embedding(model, made, anatomy)
    return made


def _cut_feed_forward(state: State, anatomy: Anatomy, index: int, units: Tensor) -> None:
    block, layer = anatomy.feed_forward, anatomy.layer(index)
    for part in (block.gate, block.up):
        if part is not None:
            _rows(state, f"{layer}.{part}", units)
    _columns(state, f"{layer}.{block.down}", units)


def _cut_heads(state: State, anatomy: Anatomy, index: int, heads: Tensor, groups: Tensor) -> None:
    attention, layer = anatomy.attention, anatomy.layer(index)
    queries, keys = (_units(which, attention.head_size) for which in (heads, groups))
    _rows(state, f"{layer}.{attention.query}", queries)
    _columns(state, f"{layer}.{attention.output}", queries)
    for part in (attention.key, attention.value):
        _rows(state, f"{layer}.{part}", keys)


def _cut_hidden(model: PreTrainedModel, state: State, anatomy: Anatomy, units: Tensor) -> None:
    """An RMS norm divides by the root of a mean over D, now over D': its gain takes sqrt(D / D')
    up, and its epsilon D / D'; where norms of queries and keys share that epsilon it is left
    alone, which is all that then differs."""
    for index in range(anatomy.depth):
        layer = anatomy.layer(index)
        for part in anatomy.readers():
            _columns(state, f"{layer}.{part}", units)
        for part in anatomy.writers():
            _rows(state, f"{layer}.{part}", units)
    for name in (anatomy.embedding, anatomy.head):
        if f"{name}.weight" in state:
            _columns(state, name, units)
    grown = (anatomy.hidden / len(units)) ** 0.5
    norms = [f"{anatomy.layer(i)}.{name}" for i in range(anatomy.depth) for name in anatomy.norms]
    for name in (*norms, anatomy.final_norm):
        offset = float(has_offset(model.get_submodule(name)))
        gain = state[f"{name}.weight"][units].double() + offset
        state[f"{name}.weight"] = (gain * grown - offset).to(state[f"{name}.weight"])


def set_sizes(config: PreTrainedConfig, anatomy: Anatomy) -> None:
    """Write the anatomy's sizes into a configuration, in place; whether it takes them is for
    `fault_of`."""
    text, attention = config.get_text_config(), anatomy.attention
    text.head_dim = attention.head_size
    text.hidden_size = anatomy.hidden
    text.intermediate_size = anatomy.feed_forward.width
    text.num_attention_heads = attention.heads
    text.num_key_value_heads = attention.groups


def fault_of(config: PreTrainedConfig) -> str | None:
    """Why the configuration could not be saved or loaded; None where it could. Llama's and Gemma
    2's refuse a width that their heads don't divide, though their models run with it."""
    try:
        config.validate()
    except StrictDataclassError as error:
        return str(error.__cause__ or error)
    return None


def _build(model: PreTrainedModel, anatomy: Anatomy, kept: Kept, state: State) -> PreTrainedModel:
    config = copy.deepcopy(model.config)
    now = anatomy.resized(
        len(kept.hidden), len(kept.feed_forward[0]), len(kept.heads[0]), len(kept.groups[0])
    )
    set_sizes(config, now)
    text = config.get_text_config()
    if "rms_norm_eps" in text.to_dict() and not anatomy.attention.norms:
        text.rms_norm_eps *= anatomy.hidden / len(kept.hidden)
    made = type(model)(config)
    for parameter in made.parameters():
        parameter.data = parameter.data.to(model.device, model.dtype)
    try:
        made.load_state_dict(state)
    except RuntimeError as error:
        raise BadInput(
            f"{type(model).__name__} can't be built in another width",
            f"Its configuration does not decide all sizes: {str(error)[:300]}",
        ) from error
    made.tie_weights()
    made.generation_config = model.generation_config
    made.train(False)
    return made


@torch.no_grad()
def _mend_embedding(model: PreTrainedModel, made: PreTrainedModel, anatomy: Anatomy) -> None:
    """Some models multiply embeddings by sqrt(D). With tied embeddings the head changes as well,
    which the last norm takes back."""
    factor = embedding_scale(model, anatomy) / embedding_scale(made, anatomy)
    if abs(factor - 1) < 1e-6:
        return
    embedding = made.get_submodule(anatomy.embedding)
    dict(embedding.named_parameters())["weight"].mul_(factor)
    if anatomy.tied:
        norm = made.get_submodule(anatomy.final_norm)
        weight, offset = dict(norm.named_parameters())["weight"], float(has_offset(norm))
        weight.copy_((weight.double() + offset) / factor - offset)


@torch.no_grad()
def embedding_scale(model: PreTrainedModel, anatomy: Anatomy) -> float:
    """By how much the first layer's input is larger than the rows of the embedding."""
    seen: list[Tensor] = []

    def see(module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        seen.append(args[0] if args else kwargs["hidden_states"])

    layer = model.get_submodule(anatomy.layer(0))
    handles = [layer.register_forward_pre_hook(see, with_kwargs=True), stopping(layer)]
    ids = torch.arange(1, 9, device=model.device)[None] % model.config.vocab_size
    try:
        run_until_reached(model, ids, torch.ones_like(ids, dtype=torch.bool))
    finally:
        remove(handles)
    weight = dict(model.get_submodule(anatomy.embedding).named_parameters())["weight"]
    rows = weight[ids].double()
    return float((seen[0].double() * rows).sum() / rows.square().sum())


def _units(heads: Tensor, size: int) -> Tensor:
    """Indices of whole heads -> those of their units."""
    return (heads[:, None] * size + torch.arange(size, device=heads.device)).flatten()


def _rows(state: State, name: str, index: Tensor) -> None:
    for suffix in ("weight", "bias"):
        if f"{name}.{suffix}" in state:
            state[f"{name}.{suffix}"] = state[f"{name}.{suffix}"][index]


def _columns(state: State, name: str, index: Tensor) -> None:
    state[f"{name}.weight"] = state[f"{name}.weight"][:, index]
