"""What a stage saved, loaded again, against the model that it had in memory.

Both compute in one dtype, that of the model in memory, on the same rows: what was stored is then
the only thing that can differ, and an export that keeps its numbers differs by next to nothing.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel

from trainer.data import TokenRow
from trainer.errors import BadInput
from trainer.evaluate import listen
from trainer.loading import load_model

ROWS = 8
"""That both are asked, at most."""
LIMIT = 0.01
"""Nats: what the mean |difference of log-probability| may be at most."""


class ExportDiffers(BadInput):
    """A saved model does not answer as the one that was made; the same run saves it so again."""


@dataclass(frozen=True)
class Spoken:
    """What a model in memory says of rows, after which it may go."""

    logprobs: Tensor
    """[K] of the completion tokens, fp32."""
    dtype: torch.dtype
    """What it computed in."""


def speak(model: PreTrainedModel, rows: Sequence[TokenRow]) -> Spoken:
    """Of the first `ROWS` rows."""
    return Spoken(_logprobs(model, rows), model.dtype)


def check_saved(said: Spoken, directory: Path, rows: Sequence[TokenRow]) -> dict[str, Any]:
    """How far the model of `directory` is from what was said, for the report. Raises ExportDiffers
    where that is more than `LIMIT`, and BadInput where it doesn't load; the directory goes then."""
    try:
        loaded = _logprobs(load_model(directory, said.dtype), rows)
        found = _differences(said.logprobs, loaded)
        if not float(found.mean()) <= LIMIT:  # no number is no match
            raise ExportDiffers(
                f"what {directory.parent.name} saved does not answer as the model that it made",
                f"Loaded again, its log-probabilities of {len(found)} tokens are off by "
                f"{float(found.mean()):.4f} nats on average and {float(found.max()):.4f} at most, "
                f"in {_name(said.dtype)}; {LIMIT} is the limit. It was not kept.",
            )
    except BadInput:
        shutil.rmtree(directory)
        raise
    return {
        "mean_logprob_difference": float(found.mean()),
        "largest_logprob_difference": float(found.max()),
        "tokens": len(found),
        "dtype": _name(said.dtype),
    }


@torch.inference_mode()
def _logprobs(model: PreTrainedModel, rows: Sequence[TokenRow]) -> Tensor:
    said = listen(model, rows[:ROWS])
    found = [
        -F.cross_entropy(said.logits(batch), targets, reduction="none")
        for batch, targets in enumerate(said.targets)
    ]
    return torch.cat(found).cpu()


def _differences(ours: Tensor, theirs: Tensor) -> Tensor:
    """[K]; 0 where neither is a number: a stage's gate tells of outputs that are none."""
    alike = (ours == theirs) | (ours.isnan() & theirs.isnan())
    return torch.where(alike, torch.zeros_like(ours), (ours - theirs).abs())


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
