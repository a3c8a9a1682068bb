"""A chain of stages that share one calibration pass, against a run of its own for each.

Both end with the same models: their weights are compared before anything counts.
"""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.result import Result
from examples.compression.text import read_text, write_dataset, write_model
from trainer.compress.chain import run as run_chain
from trainer.compress.measuring import digest_model
from trainer.events import silent
from trainer.spec import CompressSpec

TARGET = 2.0
STAGES: tuple[dict[str, Any], ...] = (
    {"kind": "wanda"},
    {"kind": "svd", "on": "start"},
    {"kind": "ptq", "on": "start", "scheme": "W4A16", "algorithm": "awq", "group_size": 32},
    {"kind": "ptq", "on": "start", "scheme": "W8A8", "algorithm": "smoothquant"},
)
"""Pruned, factorized and quantized, all from one model: three of them look at its activations."""


def run(quick: bool) -> Result:
    """The ratio for all stages; growth over how many there are."""
    with tempfile.TemporaryDirectory() as place:
        dataset = write_dataset(read_text(None), Path(place, "data"), 48 if quick else 200)
        model = write_model(Path(place, "model"), 64 if quick else 128, 1 if quick else 3)
        given = {"model": str(model), "dataset": str(dataset), "threads": 1, "serve_check": False}
        rounds = 1 if quick else 2
        counts = (2,) if quick else (2, len(STAGES))
        growth = [measure(given, count, rounds, Path(place)) for count in counts]
    last = growth[-1]
    return Result(
        name="stages",
        ours=last["chain_s"],
        unit="s",
        ratio=last["apart_s"] / last["chain_s"],
        target=f">= {TARGET:.0f} x the speed of separate runs",
        met=last["apart_s"] / last["chain_s"] >= TARGET,
        peer=last["apart_s"],
        growth=growth,
    )


def measure(given: dict[str, Any], count: int, rounds: int, place: Path) -> dict[str, float]:
    """Medians over interleaved rounds, everything counted: loading, stages, measuring."""
    times: dict[str, list[float]] = {"chain": [], "apart": []}
    for number in range(rounds):
        made = {}
        for side, groups in (
            ("chain", [STAGES[:count]]),
            ("apart", [(s,) for s in STAGES[:count]]),
        ):
            begun, models = time.perf_counter(), []
            for index, stages in enumerate(groups):
                spec = CompressSpec.model_validate({**given, "stages": stages})
                out = place / f"{side}-{count}-{number}-{index}"
                models += [Path(report.model) for report in run_chain(spec, out, silent)]
            times[side].append(time.perf_counter() - begun)
            made[side] = [digest_model(model) for model in models]
        if made["chain"] != made["apart"]:
            raise AssertionError("the two ways made different models")
    return {"stages": float(count)} | {
        f"{side}_s": statistics.median(found) for side, found in times.items()
    }
