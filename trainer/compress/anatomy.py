"""Every part of a decoder, found from its modules and from how they act, never from names.

D width, F feed-forward width, H query heads, G groups (key-value heads), h head size.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from trainer.compress.layout import find_layers, find_linears
from trainer.compress.probing import attention_roles, feed_forward_roles, trace
from trainer.errors import BadInput


@dataclass(frozen=True)
class Attention:
    """Names within a layer: query [H h, D], key and value [G h, D], output [D, H h]."""

    query: str
    key: str
    value: str
    output: str
    norms: tuple[str, ...]
    """Of queries and keys; empty where there are none."""
    heads: int
    groups: int
    head_size: int

    @property
    def linears(self) -> tuple[str, ...]:
        """All four."""
        return (self.query, self.key, self.value, self.output)


@dataclass(frozen=True)
class FeedForward:
    """Names within a layer: gate and up [F, D], down [D, F]; gate None where nothing is gated."""

    gate: str | None
    up: str
    down: str
    width: int


@dataclass(frozen=True)
class Anatomy:
    """Where the parts are. Names are the model's; those of `attention`, `feed_forward` and
    `norms` are within each layer, whose own names are `<layers>.<index>`."""

    embedding: str
    layers: str
    depth: int
    attention: Attention
    feed_forward: FeedForward
    norms: tuple[str, ...]
    """The layer's, over D."""
    final_norm: str
    head: str
    tied: bool
    """Whether the head's weight is the embedding's."""
    hidden: int

    def layer(self, index: int) -> str:
        """A layer's name in the model."""
        return f"{self.layers}.{index}"

    def resized(self, hidden: int, width: int, heads: int, groups: int) -> "Anatomy":
        """The same parts with so many units, of the residual stream and of each layer."""
        attention = replace(self.attention, heads=heads, groups=groups)
        feed_forward = replace(self.feed_forward, width=width)
        return replace(self, hidden=hidden, attention=attention, feed_forward=feed_forward)

    def readers(self) -> tuple[str, ...]:
        """Linears of a layer that read D numbers."""
        gate = (self.feed_forward.gate,) if self.feed_forward.gate else ()
        return (*self._attention_readers(), *gate, self.feed_forward.up)

    def writers(self) -> tuple[str, ...]:
        """Linears of a layer that write D numbers."""
        return (self.attention.output, self.feed_forward.down)

    def _attention_readers(self) -> tuple[str, ...]:
        return (self.attention.query, self.attention.key, self.attention.value)


def find_anatomy(model: PreTrainedModel) -> Anatomy:
    """The parts of a dense decoder. Raises BadInput with what was looked for and not found."""
    layout = find_layers(model)
    first = layout.layers[0]
    names = {id(module): name for name, module in model.named_modules()}
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if not isinstance(head, nn.Linear) or not isinstance(embedding, nn.Embedding):
        raise _unknown(model, "one nn.Embedding and one nn.Linear head", "none")
    hidden = int(embedding.weight.shape[1])
    attention_linears, block_linears = _split(model, first)
    attention = _find_attention(model, first, attention_linears)
    final = _final_norm(model, layout.name, hidden)
    made = Anatomy(
        embedding=names[id(embedding)],
        layers=layout.name,
        depth=len(layout.layers),
        attention=attention,
        feed_forward=_find_feed_forward(model, first, block_linears),
        norms=_norms(first, hidden, but=set(attention.norms)),
        final_norm=final,
        head=names[id(head)],
        tied=head.weight is embedding.weight,
        hidden=hidden,
    )
    _check_uniform(model, made)
    return made


def has_offset(norm: nn.Module) -> bool:
    """Whether an RMS norm multiplies by 1 + w (as Gemma's) rather than by w.

    Raises BadInput for other norms: those that take out a mean, or add a bias.
    """
    weight: Tensor = dict(norm.named_parameters())["weight"].detach().float()
    x = torch.linspace(-1.0, 2.0, len(weight), device=weight.device) + 0.1
    with torch.no_grad():
        given = dict(norm.named_parameters())["weight"].dtype
        y = norm(x.to(given)[None])[0].float()
    unit = x / x.square().mean().sqrt()
    plain, offset = (float((y - unit * gain).abs().max()) for gain in (weight, 1 + weight))
    limit = 0.03 * float(y.abs().max()) + 1e-6
    if min(plain, offset) > limit or dict(norm.named_parameters()).keys() != {"weight"}:
        raise BadInput(
            f"{type(norm).__name__} is no RMS norm",
            "A hidden width can be pruned where norms are x / rms(x), times w or 1 + w: one that "
            "takes out a mean mixes all units. Prune depth, heads or feed-forward width instead.",
        )
    return offset < plain


def _split(model: PreTrainedModel, layer: nn.Module) -> tuple[list[str], list[str]]:
    """Names of the attention's four linears and of the feed-forward block's two or three, each
    with those that read the block's input first."""
    blocks: dict[str, list[tuple[str, int]]] = {}
    for flow in trace(model, layer):
        blocks.setdefault(flow.name.rpartition(".")[0], []).append((flow.name, flow.read))
    found: dict[int, list[str]] = {}
    for flows in blocks.values():
        shared = [name for name, read in flows if read == flows[0][1]]
        rest = [name for name, _ in flows if name not in shared]
        if len(rest) == 1 and len(shared) in (1, 2, 3):
            found.setdefault(3 if len(shared) == 3 else 2, []).extend([*shared, *rest])
    shapes = {name: tuple(linear.weight.shape) for name, linear in find_linears(layer).items()}
    if len(found.get(3, ())) != 4 or len(found.get(2, ())) not in (2, 3) or len(blocks) != 2:
        raise _unknown(
            model,
            "in each layer one block of three linears that read one tensor and a fourth (query, "
            "key, value, output), and one of one or two and another (gate, up, down); fused ones "
            "and several experts aren't supported",
            f"{shapes}",
        )
    return found[3], found[2]


def _find_attention(model: PreTrainedModel, layer: nn.Module, linears: list[str]) -> Attention:
    *readers, output = linears
    query, key, value = attention_roles(model, layer, readers, output)
    found = find_linears(layer)
    sizes = {name: found[name].weight.shape for name in linears}
    heads = int(model.config.get_text_config().num_attention_heads)
    size, left = divmod(int(sizes[query][0]), heads)
    groups, rest = divmod(int(sizes[key][0]), max(size, 1))
    fits = sizes[output][1] == sizes[query][0] and sizes[key][0] == sizes[value][0]
    if left or rest or not fits or heads % max(groups, 1):
        raise _unknown(
            model,
            f"{heads} heads of one size, in groups that share a key and a value",
            f"query {tuple(sizes[query])}, key {tuple(sizes[key])}, value {tuple(sizes[value])}, "
            f"output {tuple(sizes[output])}",
        )
    block = query.rpartition(".")[0]
    inside = layer.get_submodule(block)
    norms = tuple(f"{block}.{name}" for name in _norms(inside, size, but=set()))
    return Attention(query, key, value, output, norms, heads, groups, size)


def _find_feed_forward(model: PreTrainedModel, layer: nn.Module, linears: list[str]) -> FeedForward:
    *readers, down = linears
    gate, up = feed_forward_roles(model, layer, readers, down)
    width = find_linears(layer)[up].out_features
    if find_linears(layer)[down].in_features != width:
        raise _unknown(model, f"a down projection of {width} inputs", f"{down}")
    return FeedForward(gate, up, down, width)


def _norms(module: nn.Module, size: int, but: set[str]) -> tuple[str, ...]:
    """Modules whose own parameters are one vector of `size` numbers, or two (with a bias)."""
    found = []
    for name, inner in module.named_modules():
        own = dict(inner.named_parameters(recurse=False))
        vectors = all(tensor.shape == (size,) for tensor in own.values())
        if name not in but and own.keys() in ({"weight"}, {"weight", "bias"}) and vectors:
            found.append(name)
    return tuple(found)


def _final_norm(model: PreTrainedModel, layers: str, hidden: int) -> str:
    names = [name for name in _norms(model, hidden, set()) if not name.startswith(f"{layers}.")]
    if len(names) != 1:
        raise _unknown(model, f"one norm over {hidden} numbers behind the layers", f"{names}")
    return names[0]


def _check_uniform(model: PreTrainedModel, found: Anatomy) -> None:
    """Each layer is built as the first, and nothing has parameters that no part explains."""
    parts = [*found.readers(), *found.writers(), *found.norms, *found.attention.norms]
    outside = {found.embedding, found.final_norm, found.head}
    explained = {f"{found.layer(i)}.{part}" for i in range(found.depth) for part in parts}
    owners = {name.rpartition(".")[0] for name, _ in model.named_parameters()}
    unexplained = sorted(owners - explained - outside)
    first = _shapes(model, found, 0, parts)
    differing = [i for i in range(found.depth) if _shapes(model, found, i, parts) != first]
    if unexplained or differing:
        raise _unknown(
            model,
            "layers that are all alike, of linears and norms alone",
            f"{', '.join(unexplained[:4])} beside them; layers {differing} unlike the first",
        )


def _shapes(
    model: PreTrainedModel, found: Anatomy, index: int, parts: Sequence[str]
) -> list[tuple[int, ...]]:
    modules = dict(model.get_submodule(found.layer(index)).named_modules())
    return [tuple(modules[part].weight.shape) if part in modules else () for part in parts]


def _unknown(model: PreTrainedModel, wanted: str, found: str) -> BadInput:
    return BadInput(
        f"the parts of {type(model).__name__} were not all found",
        f"Looked for {wanted}; found {found}.",
    )
