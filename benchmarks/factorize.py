"""Factorizing a layer's linears by whitened and by activation-scaled SVD, against the plain way.

The plain way is the papers' text taken word for word: for each linear its own S and the inverse of
it, and a full SVD of W S. Ours makes S once for all linears that read one tensor, and takes
singular vectors from the smaller Gram matrix of W S. Both must lose the same on the inputs first.
"""

import statistics
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from benchmarks.result import Result
from trainer.compress.factors import factorize, make_scales, relative_error
from trainer.compress.moments import Moments, damped_cholesky
from trainer.compress.ranks import rank_for
from trainer.spec import SvdFactorize

TARGET = 5.0
LOSS = 1.001
READS = {
    "q_proj": "hidden", "k_proj": "hidden", "v_proj": "hidden", "o_proj": "heads",
    "gate_proj": "hidden", "up_proj": "hidden", "down_proj": "inner",
}  # fmt: skip
"""Which tensor each linear reads."""
Factors = dict[str, tuple[Tensor, Tensor]]


def run(quick: bool) -> Result:
    """The ratio by whitening at the largest width; growth over widths and scalings."""
    growth = [
        measure(width, scaling, 1 if quick else 3)
        for width in ((32, 64) if quick else (128, 256, 512))
        for scaling in ("activation", "whitening")
    ]
    last = growth[-1]
    return Result(
        name="factorize",
        ours=last["ours_s"],
        unit="s a layer",
        ratio=last["plain_s"] / last["ours_s"],
        target=f">= {TARGET:.0f} x the plain way's speed at <= {LOSS} x its loss",
        met=last["plain_s"] / last["ours_s"] >= TARGET and last["loss"] <= LOSS,
        peer=last["plain_s"],
        growth=growth,
    )


def measure(width: int, scaling: str, rounds: int) -> dict[str, float]:
    """Medians over interleaved rounds; `loss` is the largest ratio of ours to the plain one's,
    `eigenvectors_s` a part of ours."""
    weights, moments = make_layer(width)
    stage = SvdFactorize.model_validate({"kind": "svd", "scaling": scaling})
    sides: dict[str, Callable[[], Factors]] = {
        "ours": lambda: ours(stage, weights, moments),
        "plain": lambda: plain(scaling, stage.alpha, weights, moments),
    }
    made = {name: side() for name, side in sides.items()}
    lost = {
        name: {n: relative_error(weights[n], a @ b, moments[n].gram) for n, (a, b) in f.items()}
        for name, f in made.items()
    }
    loss = max(lost["ours"][name] / lost["plain"][name] for name in weights)
    if loss > LOSS:
        raise AssertionError(f"ours loses {loss} times as much")
    grams = make_grams(stage, weights, moments)
    timed: dict[str, Callable[[], object]] = {
        **sides,
        "eigenvectors": lambda: [torch.linalg.eigh(gram) for gram in grams],
    }
    times: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(rounds):
        for name, side in timed.items():
            begun = time.perf_counter()
            side()
            times[name].append(time.perf_counter() - begun)
    medians = {f"{name}_s": statistics.median(found) for name, found in times.items()}
    inputs, linears = float(len(set(READS.values()))), float(len(READS))
    kind = {"whitening": float(scaling == "whitening"), "width": float(width)}
    return {**kind, **medians, "loss": loss, "scalings": inputs, "linears": linears}


def ours(
    stage: SvdFactorize, weights: Mapping[str, Tensor], moments: Mapping[str, Moments]
) -> Factors:
    """As the stage does it."""
    scales = make_scales(stage, moments)
    return {
        name: factorize(weight, scales[name], _rank(name, weight))
        for name, weight in weights.items()
    }


def make_grams(
    stage: SvdFactorize, weights: Mapping[str, Tensor], moments: Mapping[str, Moments]
) -> list[Tensor]:
    """The smaller Gram matrix of each W S, whose eigenvectors are what ours can't do without."""
    made, scales = [], make_scales(stage, moments)
    for name, weight in weights.items():
        if weight.shape[0] <= weight.shape[1]:
            made.append(scales[name].outer(weight))
        else:
            scaled = scales[name].apply(weight)
            made.append(scaled.T @ scaled)
    return made


def plain(
    scaling: str, alpha: float, weights: Mapping[str, Tensor], moments: Mapping[str, Moments]
) -> Factors:
    """W S = U s V^T, cut, S^-1 folded back; one linear at a time."""
    made = {}
    for name, weight in weights.items():
        found = moments[name]
        if scaling == "whitening":
            lower, _ = damped_cholesky(found.gram)
        else:
            lower = torch.diag(found.mean_abs**alpha)
        u, values, vt = torch.linalg.svd(weight @ lower, full_matrices=False)
        rank = _rank(name, weight)
        made[name] = (u[:, :rank] * values[:rank], vt[:rank] @ torch.linalg.inv(lower))
    return made


def make_layer(width: int) -> tuple[dict[str, Tensor], dict[str, Moments]]:
    """Random linears of a layer with a third as many keys as queries, and correlated inputs."""
    generator = torch.Generator().manual_seed(0)
    inner = width * 11 // 4
    sizes = {"hidden": width, "heads": width, "inner": inner}
    outputs = {"k_proj": width // 4, "v_proj": width // 4, "gate_proj": inner, "up_proj": inner}

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    found = {}
    for name, size in sizes.items():
        x = random(4 * size, size) @ random(size, size) * torch.logspace(0, -1, size)
        found[name] = Moments(x.T @ x, x.abs().mean(dim=0), x.abs().amax(dim=0))
    moments = {name: found[read] for name, read in READS.items()}
    weights = {name: random(outputs.get(name, width), sizes[r]) for name, r in READS.items()}
    return weights, moments


def _rank(name: str, weight: Tensor) -> int:
    return rank_for(name, weight.shape, 0.6)
