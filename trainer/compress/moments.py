"""What a linear is given on calibration rows, gathered in one pass. N tokens, n inputs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from trainer.compress.activations import observe
from trainer.compress.layout import find_layers, find_linears
from trainer.data import TokenRow
from trainer.errors import BadInput

LIMIT_BYTES = 4 * 2**30
"""Of X^T X matrices alive at once; layers beyond that wait for another pass."""
DAMPING = 1e-6
"""Added to the diagonal of X^T X, as a share of its mean; raised tenfold until Cholesky works."""
RAISES = 24
"""Of damping, at most: from the least that is felt to a million times the diagonal's mean."""


@dataclass(frozen=True)
class Moments:
    """Of one linear's inputs X [N, n]; fp64."""

    gram: Tensor
    """X^T X [n, n]"""
    mean_abs: Tensor
    """[n]"""
    max_abs: Tensor
    """[n]"""


Collect = Callable[[PreTrainedModel, Sequence[TokenRow]], Iterator[dict[str, Moments]]]
"""(model, rows) -> for each decoder layer the moments of its linears, by name within the layer."""


def collect(model: PreTrainedModel, rows: Sequence[TokenRow]) -> Iterator[dict[str, Moments]]:
    """Of the model as it is, as many layers in a pass as the limit allows."""
    layers = list(find_layers(model).layers)
    per_pass = max(1, LIMIT_BYTES // max(1, gram_bytes(layers[0])))
    for start in range(0, len(layers), per_pass):
        part = layers[start : start + per_pass]
        linears = {
            (index, name): linear
            for index, layer in enumerate(part)
            for name, linear in find_linears(layer).items()
        }
        named = {f"{index}/{name}": linear for (index, name), linear in linears.items()}
        found = layer_moments(model, named, rows, part[-1])
        for index in range(len(part)):
            yield {name: found[f"{at}/{name}"] for at, name in linears if at == index}


class Shared:
    """The moments of one model, kept for the next stage that works on the same one."""

    def __init__(self, limit_bytes: int = LIMIT_BYTES) -> None:
        self.passes = 0
        self.served = 0
        """Stages that were given moments without a pass of their own."""
        self._limit_bytes = limit_bytes
        self._key: str | None = None
        self._kept: list[dict[str, Moments]] = []

    def of(self, key: str) -> Collect:
        """A collector for the model that `key` names; another key forgets the moments before."""

        asked: list[bool] = []

        def collect_once(
            model: PreTrainedModel, rows: Sequence[TokenRow]
        ) -> Iterator[dict[str, Moments]]:
            layers = find_layers(model).layers
            if len(layers) * gram_bytes(layers[0]) > self._limit_bytes:
                self.passes += 1
                yield from collect(model, rows)
                return
            if self._key != key:
                self.passes += 1
                self._kept = list(collect(model, rows))
                self._key = key
            elif not asked:
                self.served += 1
            asked.append(True)
            yield from self._kept

        return collect_once


def gram_bytes(layer: nn.Module) -> int:
    """Of a layer's X^T X, as if no two linears read the same tensor."""
    return sum(8 * linear.in_features**2 for linear in find_linears(layer).values())


def layer_moments(
    model: PreTrainedModel,
    linears: Mapping[str, nn.Linear],
    rows: Sequence[TokenRow],
    until: nn.Module,
) -> dict[str, Moments]:
    """For each linear; those fed the same tensor share one object. BadInput for NaN or inf."""
    sums: dict[str, list[Tensor]] = {}
    sharers: dict[str, str] = {}
    fed: dict[str, Tensor] = {}
    tokens = sum(len(row.ids) for row in rows)

    def see(name: str, x: Tensor, mask: Tensor) -> None:
        sharer = next((other for other, tensor in fed.items() if tensor is x), None)
        fed.pop(name, None)
        if sharer is not None:
            sharers[name] = sharer
            return
        fed.clear()  # inputs come one after another: an older tensor isn't read again
        fed[name] = x
        kept = x[mask].double()
        new = [kept.T @ kept, kept.abs().sum(dim=0), kept.abs().amax(dim=0)]
        if name not in sums:
            sums[name] = new
            return
        held = sums[name]
        sums[name] = [held[0] + new[0], held[1] + new[1], torch.maximum(held[2], new[2])]

    observe(model, linears, rows, see, until=until)
    own = {name: Moments(s[0], s[1] / tokens, s[2]) for name, s in sums.items()}
    for name, moments in own.items():
        check_finite(name, moments.gram)
    return {name: own[sharers.get(name, name)] for name in linears}


def gram_matrices(
    model: PreTrainedModel,
    linears: Mapping[str, nn.Linear],
    rows: Sequence[TokenRow],
    layer: nn.Module,
) -> dict[str, Tensor]:
    """X^T X [n, n] in fp64 for each linear; linears fed the same tensor share one object."""
    found = layer_moments(model, linears, rows, layer)
    return {name: moments.gram for name, moments in found.items()}


def check_finite(name: str, gram: Tensor) -> None:
    """Refuse statistics from which nothing can be told."""
    if not torch.isfinite(gram).all():
        raise BadInput(
            f"what {name.rpartition('/')[2]} is given on the calibration rows is not finite",
            "The model's activations overflow. Load it in fp32 or bf16, or look at its weights.",
        )


def damped_cholesky(gram: Tensor, damping: float = DAMPING) -> tuple[Tensor, float]:
    """Lower S [n, n] with S S^T = gram + damping * mean(diagonal); and the damping it took."""
    mean = gram.diagonal().mean()
    scale = torch.where(mean > 0, mean, 1.0)  # a linear may be given nothing at all
    for _ in range(RAISES):
        damped = gram + damping * scale * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        lower: Tensor
        lower, failed = torch.linalg.cholesky_ex(damped)
        if not failed:
            return lower, damping
        damping = max(10 * damping, torch.finfo(gram.dtype).eps)  # less than that isn't felt
    raise BadInput(
        "the statistics of the calibration rows aren't positive, however much they are damped",
        "The model's activations are too large, or the damping is. Look at its weights.",
    )
