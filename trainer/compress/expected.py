"""A model that does not exist yet: what it is made of, and how big it will be."""

import math
from collections.abc import Sequence, Set
from dataclasses import dataclass

import torch
from retort_lowrank import LowRankLinear
from torch import nn
from transformers import PreTrainedModel

from trainer.compress.anatomy import Anatomy, find_anatomy
from trainer.compress.layout import find_layers, find_linears
from trainer.compress.masks import find_masked
from trainer.compress.schemes import SCHEMES
from trainer.errors import BadInput


@dataclass(frozen=True)
class Linear:
    """One linear of a layer: m outputs, n inputs."""

    m: int
    n: int
    bias: bool
    rank: int | None = None
    step: int | None = None
    """Where the layers have several ranks: all are multiples of this, `rank` at most."""
    ranks: tuple[int, ...] = ()
    """Each layer's, where layers have several and they are known; else the data decide them."""
    masked: bool = False
    """Whether a mask's zeros are in it."""

    @property
    def matrices(self) -> tuple[tuple[int, int], ...]:
        """(outputs, inputs) of what is stored: the matrix, or its two factors."""
        return self._of_rank(self.rank)

    @property
    def divisible(self) -> tuple[tuple[int, int], ...]:
        """`matrices`, with a number that every possible rank is a multiple of in the rank's
        place: what divides these divides what will be stored."""
        return self._of_rank(self.step or self.rank)

    @property
    def searched(self) -> bool:
        """Whether the data decide its ranks."""
        return self.step is not None and not self.ranks

    @property
    def least(self) -> int:
        """The smallest side of what is stored."""
        lowest = min(self.ranks, default=self.rank)
        return min(min(matrix) for matrix in self._of_rank(lowest))

    def of_layers(self, layers: int) -> list[tuple[int, int]]:
        """(outputs, inputs) of what is stored in all layers, where the ranks are known."""
        if self.ranks:
            return [matrix for rank in self.ranks for matrix in self._of_rank(rank)]
        return list(self.matrices) * layers

    @property
    def cost(self) -> int:
        """Parameters of one rank."""
        return self.m + self.n

    def _of_rank(self, rank: int | None) -> tuple[tuple[int, int], ...]:
        if rank is None:
            return ((self.m, self.n),)
        return ((rank, self.n), (self.m, rank))


@dataclass(frozen=True)
class Expected:
    """A model that does not exist yet."""

    model_type: str
    layers: int
    linears: dict[str, Linear]
    """Of each layer, by name."""
    other_per_layer: int
    """Parameters of a layer outside of its linears."""
    outside: int
    """Parameters outside of the layers."""
    item_bytes: int
    anatomy: Anatomy | None = None
    """With sizes as they will be; None where only the layers and their linears are known."""
    layer_kinds: frozenset[str] = frozenset()
    """How its layers attend, where the configuration tells it of each; depth may leave fewer."""
    scheme: str | None = None
    group_size: int = 128
    zero_points: bool = False
    """Whether each group has one, of as many bits as a weight."""
    budget: int | None = None
    """Parameters that all factors whose ranks the data decide have at most; None: as many as their
    highest ranks have."""

    @property
    def unknown(self) -> bool:
        """Whether the data decide the size: sizes are what it is at most, then."""
        return bool(self._searched)

    @property
    def parameters(self) -> int:
        """Numbers in the model, packed ones counted as numbers."""
        return self._plain + sum(m * n for m, n in self._fixed) + self._spent

    @property
    def factorized(self) -> bool:
        """Whether some linear is stored as two factors."""
        return any(linear.rank is not None for linear in self.linears.values())

    @property
    def sparse(self) -> bool:
        """Whether some linear has a mask's zeros."""
        return any(linear.masked for linear in self.linears.values())

    @property
    def of_its_own_form(self) -> bool:
        """Whether an engine must load it otherwise than a dense model."""
        return self.factorized or self.scheme is not None

    @property
    def weight_bytes(self) -> int:
        """On disk, headers left out."""
        fixed = sum(self._stored(m, n) for m, n in self._fixed)
        return self._plain * self.item_bytes + fixed + self._searched_bytes()

    @property
    def _plain(self) -> int:
        """Parameters that are never packed."""
        biases = sum(linear.m for linear in self.linears.values() if linear.bias)
        return self.outside + self.layers * (self.other_per_layer + biases)

    @property
    def _fixed(self) -> list[tuple[int, int]]:
        known = [linear for linear in self.linears.values() if not linear.searched]
        return [matrix for linear in known for matrix in linear.of_layers(self.layers)]

    @property
    def _searched(self) -> list[Linear]:
        return [linear for linear in self.linears.values() if linear.searched]

    @property
    def _spent(self) -> int:
        """Parameters of the factors whose ranks the data decide."""
        most = self.layers * sum((one.rank or 0) * one.cost for one in self._searched)
        return most if self.budget is None else min(most, self.budget)

    def _searched_bytes(self) -> int:
        """At most, for these: the parameters go first where each takes most bytes."""
        left, total = self._spent, 0.0
        for one in sorted(self._searched, key=self._bytes_per_parameter, reverse=True):
            taken = min(left, self.layers * (one.rank or 0) * one.cost)
            total += taken * self._bytes_per_parameter(one) + self.layers * self._overhead(one)
            left -= taken
        return math.ceil(total)

    def _bytes_per_parameter(self, linear: Linear) -> float:
        """Over so many ranks that integers are full and groups whole."""
        ranks = math.lcm(32, self.group_size)
        return (self._factors(linear, ranks) - self._factors(linear, 0)) / (ranks * linear.cost)

    def _overhead(self, linear: Linear) -> int:
        """What factors take beside that: at no rank at all, and in integers that aren't full."""
        none = self._factors(linear, 0)
        scheme = SCHEMES[self.scheme] if self.scheme else None
        if scheme is None or not scheme.packed:
            return none
        rows = linear.m + (linear.n // self.group_size if self.zero_points else 0)
        empty = 32 - math.gcd(32, (linear.step or 1) * scheme.bits)
        return none + rows * empty // 8

    def _factors(self, linear: Linear, rank: int) -> int:
        return self._stored(rank, linear.n) + self._stored(linear.m, rank)

    def _stored(self, m: int, n: int) -> int:
        """Bytes of a matrix of the layers."""
        if self.scheme is None:
            return m * n * self.item_bytes
        scheme = SCHEMES[self.scheme]
        return scheme.stored_bytes(m, n, self.group_size, self.item_bytes, self.zero_points)


def describe(model: PreTrainedModel) -> Expected:
    """The model as it stands, with the zeros of a mask that an earlier run may have left."""
    layout = find_layers(model)
    try:
        anatomy = find_anatomy(model)
    except BadInput:
        anatomy = None  # stages that need no more than layers and linears still work
    within = sum(p.numel() for p in layout.layers[0].parameters())
    masked = find_masked(layout.layers)
    first = find_linears(layout.layers[0])
    counted = _counted(layout.layers, masked)
    in_linears = sum(p.numel() for linear in first.values() for p in linear.parameters())
    whole = sum(p.numel() for p in model.parameters())
    all_layers = sum(p.numel() for p in layout.layers.parameters())
    return Expected(
        model_type=model.config.model_type,
        layers=len(layout.layers),
        linears=counted,
        other_per_layer=within - in_linears,
        outside=whole - all_layers,
        item_bytes=torch.empty((), dtype=model.dtype).element_size(),
        anatomy=anatomy,
        layer_kinds=frozenset(model.config.get_text_config().to_dict().get("layer_types") or ()),
    )


def _counted(layers: nn.ModuleList, masked: Set[str]) -> dict[str, Linear]:
    """Of each layer, by name; two factors are one, whose rank each layer may have its own of."""
    found = {}
    for name, module in layers[0].named_modules():
        if isinstance(module, LowRankLinear):
            alike = [layer.get_submodule(name) for layer in layers]
            ranks = [one.right.out_features for one in alike if isinstance(one, LowRankLinear)]
            hidden = not {f"{name}.left", f"{name}.right"}.isdisjoint(masked)
            found[name] = _of_ranks(module, ranks, hidden)
        elif isinstance(module, nn.Linear) and name.rpartition(".")[0] not in found:
            found[name] = Linear(*_shape(module), module.bias is not None, masked=name in masked)
    return found


def _of_ranks(factors: LowRankLinear, ranks: Sequence[int], masked: bool) -> Linear:
    left, right = factors.left, factors.right
    several = len(set(ranks)) > 1
    return Linear(
        left.out_features,
        right.in_features,
        left.bias is not None,
        rank=max(ranks),
        step=math.gcd(*ranks) if several else None,
        ranks=tuple(ranks) if several else (),
        masked=masked,
    )


def _shape(linear: nn.Linear) -> tuple[int, int]:
    return linear.out_features, linear.in_features
