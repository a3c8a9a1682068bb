"""Quantization-aware fine-tuning as a stage: rounded first, then a small part is trained.

PEQA trains the scales of fixed codes and loses nothing when it is saved. Adapters are merged:
QLoRA's into weights that are rounded again, QA-LoRA's exactly, into zero points that are real
numbers until they are stored. What that loses is measured.
"""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from trainer.compress.fake_quant import Quantized, as_saved, export, merge_error, rounded_linears
from trainer.compress.outcome import Outcome
from trainer.compress.qat import Trained, Workplace, outcome, train_rounded
from trainer.evaluate import mean_kl
from trainer.loading import load_model, stored_dtype
from trainer.spec import QuantizeFinetune

TRAINS = {"peqa": "scales", "qlora": "adapters", "qa_lora": "pooled_adapters"}
WHAT = {
    "peqa": "QAF by PEQA: weights were rounded once, then their scales alone were trained",
    "qlora": "QAF by QLoRA: adapters were trained on a rounded base, merged, and rounded again",
    "qa_lora": "QAF by QA-LoRA: adapters were trained on a rounded base and merged into its zero "
    "points, which were then rounded to whole numbers",
}
MEASURED_ROWS = 64
"""Rows that the loss of merging is a mean over, at most."""


def run(stage: QuantizeFinetune, place: Workplace) -> Outcome:
    """Train a small part of the rounded model; the outcome saves itself as `qat`'s does."""
    quantized = quantized_by(stage, stored_dtype(place.source))
    made = train_rounded(stage.training, quantized, place)
    if stage.method == "peqa":
        return outcome(made, quantized, WHAT["peqa"])
    lost = made.details["merge"] = measure_merge(made, quantized, place.directory)
    said = (
        f"saving the trained model changed its weights by {lost['mean_relative_error']:.2%} and "
        f"cost KL {lost['kl']:.4f} nats per completion token"
    )
    merged = as_saved(made.model, quantized)
    return replace(outcome(made, quantized, WHAT[stage.method], said), saved=merged)


def quantized_by(stage: QuantizeFinetune, stored: torch.dtype = torch.float32) -> Quantized:
    """What the stage's fields mean for the linears."""
    rounds = stage.loftq_rounds if stage.initialization == "loftq" else 0
    return Quantized(
        stage.scheme,
        stage.group_size,
        TRAINS[stage.method],  # type: ignore[arg-type]
        stage.rank,
        stage.alpha,
        rounds,
        stored,
    )


def measure_merge(made: Trained, quantized: Quantized, place: Path) -> dict[str, Any]:
    """What saving changes: relative errors of the linears' weights, and KL(trained || saved) in
    nats per completion token. It is saved within `place`, and taken out again."""
    errors = {
        name: merge_error(module, quantized) for name, module in rounded_linears(made.model).items()
    }
    with tempfile.TemporaryDirectory(dir=place, prefix=".merged-") as directory:
        export(made.model, quantized, Path(directory))
        saved = load_model(directory, torch.float32)  # as it was trained: bf16 is not the merge's
        kl, tokens = mean_kl(made.model, saved, made.held[:MEASURED_ROWS])
    return {
        "mean_relative_error": sum(errors.values()) / len(errors),
        "largest_relative_error": max(errors.values()),
        "kl": kl,
        "kl_tokens": tokens,
    }
