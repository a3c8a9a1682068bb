"""Bytes of each kind of artifact, against what its numbers need: parameters x bits / 8 + scales."""

import copy
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from benchmarks.result import Result
from examples.compression.text import write_model
from trainer.compress import svd, width
from trainer.compress.expected import Expected, describe
from trainer.compress.fake_quant import Quantized, export, prepare
from trainer.compress.forecast import forecast
from trainer.data import TokenRow
from trainer.loading import load_model
from trainer.spec import CompressSpec, SvdFactorize, WidthPrune

TARGET = 1.01
QUANTIZED: dict[str, tuple[Quantized, dict[str, object]]] = {
    "W8A8": (Quantized("W8A8"), {"kind": "qat", "scheme": "W8A8"}),
    "W4A16": (Quantized("W4A16", 32), {"kind": "qat", "group_size": 32}),
    "FP8": (Quantized("FP8"), {"kind": "qat", "scheme": "FP8"}),
    "QA-LoRA": (
        Quantized("W4A16", 32, "pooled_adapters", 4),
        {"kind": "qaf", "method": "qa_lora", "group_size": 32, "rank": 4},
    ),
}


def run(quick: bool) -> Result:
    """The worst ratio of file to need; a growth row for each kind, in the order above."""
    with tempfile.TemporaryDirectory() as place:
        source = write_model(Path(place, "model"), 64 if quick else 512, 1 if quick else 6)
        model = load_model(source)
        nn.Module.to(model, torch.bfloat16)
        growth = [_row(number, *each) for number, each in enumerate(artifacts(model, Path(place)))]
    worst = max(growth, key=lambda row: row["ratio"])
    return Result(
        name="size",
        ours=worst["bytes"],
        unit="bytes",
        ratio=worst["ratio"],
        target=f"<= {TARGET} x parameters x bits / 8 + scales",
        met=worst["ratio"] <= TARGET,
        limit=worst["needed"],
        growth=growth,
    )


def artifacts(model: PreTrainedModel, place: Path) -> list[tuple[Path, float]]:
    """Dense, narrower, factorized, then quantized: directory, and the bytes that are needed."""
    dense = place / "dense"
    model.save_pretrained(dense)
    found = [(dense, float(describe(model).weight_bytes))]
    units: dict[str, object] = {
        "kind": "width",
        "feed_forward": model.config.intermediate_size // 2,
    }
    ranks: dict[str, object] = {"kind": "svd", "scaling": "none"}
    random = np.random.default_rng(0)
    rows = [TokenRow(f"r{i}", random.integers(4, 260, 64).astype(np.int32), 8) for i in range(8)]
    for name, stage in (("width", units), ("svd", ranks)):
        need = _expected(model, stage).weight_bytes
        taken = copy.deepcopy(model)
        made = (
            width.apply(WidthPrune.model_validate(stage), taken, rows)
            if name == "width"
            else svd.apply(SvdFactorize.model_validate(stage), taken, rows)
        )
        made.model.save_pretrained(place / name)
        found.append((place / name, float(need)))
    for name, (quantized, stage) in QUANTIZED.items():
        taken = copy.deepcopy(model).float()
        stored = replace(quantized, stored=model.dtype)
        prepare(taken, stored)
        export(taken, stored, place / name)
        found.append((place / name, float(_expected(model, stage).weight_bytes)))
    return found


def _row(number: int, directory: Path, needed: float) -> dict[str, float]:
    size = float(sum(path.stat().st_size for path in directory.glob("*.safetensors")))
    return {"artifact": float(number), "bytes": size, "needed": needed, "ratio": size / needed}


def _expected(model: PreTrainedModel, stage: dict[str, object]) -> Expected:
    (found,) = forecast(CompressSpec.model_validate({"stages": (stage,)}), model)
    return found.expected
