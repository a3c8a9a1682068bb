"""A quantization-aware training step against the same step unquantized, and what it recovers.

The step is the whole of it: forward, backward, AdamW. torchao's fake quantization of the same
scheme stands beside where it is installed (it is no dependency of Retort). Recovery is of the KL
from the model as it was, on held-out rows, that rounding to nearest costs.
"""

import copy
import importlib
import importlib.util
import statistics
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, get_linear_schedule_with_warmup

from benchmarks.result import Result
from examples.compression.text import make_tokenizer, read_text, write_model
from trainer.compress.fake_quant import Quantized, prepare
from trainer.compress.rounding import rtn
from trainer.compress.schemes import SCHEMES, targets_of
from trainer.loading import load_model
from trainer.objectives import forward_kl

TARGET, RECOVERED = 1.2, 0.9
GROUP = 32
BATCH, LENGTH = 16, 128
TIES = 5e-3
"""Nats by which the loss of torchao's rounding may differ from ours."""


def run(quick: bool) -> Result:
    """The ratio of medians; growth rows: times of a step, then the losses of the recovery."""
    with tempfile.TemporaryDirectory() as place:
        base = write_model(Path(place), 64 if quick else 128, 1 if quick else 3)
        model = load_model(base, torch.float32)
    ids = token_ids()
    speed = measure_steps(model, ids, 3 if quick else 15)
    recovery = measure_recovery(model, ids, 4 if quick else 250, 2 if quick else 200)
    met = speed["ratio"] <= TARGET and recovery["recovered"] >= RECOVERED
    return Result(
        name="qat",
        ours=speed["ours_s"],
        unit="s a step",
        ratio=speed["ratio"],
        target=f"<= {TARGET} x the plain step, >= {RECOVERED} of the KL of rounding recovered",
        met=met,
        limit=speed["plain_s"],
        growth=[speed, recovery],
    )


def measure_steps(model: PreTrainedModel, ids: Tensor, rounds: int) -> dict[str, float]:
    """Medians over interleaved rounds, the first left out."""
    sides: dict[str, nn.Module] = {"plain": copy.deepcopy(model), "ours": copy.deepcopy(model)}
    prepare(sides["ours"], Quantized("W4A16", GROUP))  # type: ignore[arg-type]
    if importlib.util.find_spec("torchao") is not None:
        sides["torchao"] = by_torchao(copy.deepcopy(model))
        _same_loss(sides["ours"], sides["torchao"], ids)
    optimizers = {name: torch.optim.AdamW(side.parameters(), 1e-4) for name, side in sides.items()}
    times: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, side in sides.items():
            begun = time.perf_counter()
            step(side, optimizers[name], batch(ids, number))
            times[name].append(time.perf_counter() - begun)
    ratios = [ours / plain for ours, plain in zip(times["ours"], times["plain"], strict=True)]
    medians = {f"{name}_s": statistics.median(found[1:]) for name, found in times.items()}
    return {**medians, "ratio": statistics.median(ratios[1:])}


def measure_recovery(
    model: PreTrainedModel, ids: Tensor, steps: int, aware_steps: int
) -> dict[str, float]:
    """Train, round, train through the rounding towards the model as it was; KLs from that one in
    nats a byte, held out. Not cross-entropy: more training lowers that, rounded or not."""
    held, ids = ids[-BATCH * LENGTH :], ids[: -BATCH * LENGTH]
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    for number in range(steps):
        step(model, optimizer, batch(ids, number))
    rounded, aware = copy.deepcopy(model), copy.deepcopy(model)
    for linear in targets_of(rounded).values():
        linear.weight.data = rtn(linear.weight.data, SCHEMES["W4A16"], GROUP)
    prepare(aware, Quantized("W4A16", GROUP))
    # Weights that go on moving at one rate go on crossing the grid: at 2e-4 for 60 steps the model
    # ended further off than rounding leaves it, with the same rate falling to zero it didn't.
    optimizer = torch.optim.AdamW(aware.parameters(), 5e-5, weight_decay=0.0)
    schedule = get_linear_schedule_with_warmup(optimizer, aware_steps // 10, aware_steps)
    for number in range(aware_steps):
        optimizer.zero_grad()
        distance(aware, model, batch(ids, steps + number)).backward()
        optimizer.step()
        schedule.step()
    lost, left = (float(distance(one, model, batch(held, 0)).detach()) for one in (rounded, aware))
    return {"rounded_kl": lost, "qat_kl": left, "recovered": 1 - left / lost}


def distance(model: nn.Module, start: nn.Module, ids: Tensor) -> Tensor:
    """Mean KL(start || model), nats a byte."""
    with torch.no_grad():
        target = start(input_ids=ids, use_cache=False).logits
    made = model(input_ids=ids, use_cache=False).logits
    return forward_kl(made.flatten(0, 1), target.flatten(0, 1), 1.0).mean()


def step(model: nn.Module, optimizer: torch.optim.Optimizer, ids: Tensor) -> None:
    """One optimizer step of next-byte prediction."""
    optimizer.zero_grad()
    loss(model, ids).backward()
    optimizer.step()


def loss(model: nn.Module, ids: Tensor) -> Tensor:
    """Mean nats of each byte given those before."""
    found: Tensor = model(input_ids=ids, labels=ids, use_cache=False).loss
    return found


def batch(ids: Tensor, number: int) -> Tensor:
    """[BATCH, LENGTH] of the text, from another place each time."""
    starts = [(number * BATCH + row) * LENGTH % (len(ids) - LENGTH + 1) for row in range(BATCH)]
    return torch.stack([ids[start : start + LENGTH] for start in starts])


def token_ids() -> Tensor:
    """The text, a token a byte."""
    return torch.tensor(make_tokenizer().encode(read_text(None)))


def by_torchao(model: nn.Module) -> nn.Module:
    """The same scheme by torchao's own fake quantization, the head left out as ours leaves it."""
    torchao = importlib.import_module("torchao.quantization")
    aware = importlib.import_module("torchao.quantization.qat")
    four_bits = torch.int4  # type: ignore[attr-defined]  # torch has it, its stubs don't
    config = aware.IntxFakeQuantizeConfig(four_bits, group_size=GROUP, is_symmetric=True)
    torchao.quantize_(
        model,
        aware.QATConfig(weight_config=config, step="prepare"),
        filter_fn=lambda module, name: isinstance(module, nn.Linear) and "lm_head" not in name,
    )
    return model


def _same_loss(ours: nn.Module, theirs: nn.Module, ids: Tensor) -> None:
    """Not to the last digit: a group's largest weight lies half way between two codes, and the
    two sides take either one of them."""
    with torch.no_grad():
        difference = abs(float(loss(ours, batch(ids, 0)) - loss(theirs, batch(ids, 0))))
    if difference > TIES:
        raise AssertionError(f"the two sides round differently: losses differ by {difference}")
