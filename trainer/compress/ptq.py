"""Post-training quantization, saved in compressed-tensors' format.

Round-to-nearest takes each channel's (or group's) largest weight as its scale; GPTQ
(arXiv:2210.17323) rounds column by column and lets later columns mend earlier errors on the
calibration rows; both are llmcompressor's. SmoothQuant and AWQ rescale first (see `smoothing`),
then round to nearest: llmcompressor's AWQ needs an accelerator, and its mappings go by name.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from trainer.compress.masks import find_zeros, put_back
from trainer.compress.moments import Collect, collect
from trainer.compress.outcome import Outcome
from trainer.compress.schemes import SCHEMES, check_groups, config_group, others, targets_of
from trainer.compress.smoothing import awq, smooth, smoothquant
from trainer.data import TokenRow
from trainer.errors import BadInput
from trainer.spec import QuantizePtq

SIMULATED = (
    "transformers computes with dequantized weights and rounded activations, so its tokens/s says "
    "nothing of int8 kernels; look at vLLM's"
)


def apply(
    stage: QuantizePtq,
    model: PreTrainedModel,
    rows: Sequence[TokenRow],
    gather: Collect = collect,
) -> Outcome:
    """Quantize every linear of the decoder layers; `save_pretrained` then writes packed weights.

    The model must have been loaded from a directory with its tokenizer. Raises BadInput where
    llmcompressor isn't installed, the layers hold no linears, or a group size doesn't divide.
    """
    check_groups(targets_of(model), stage.scheme, stage.group_size)
    ignored = others(model)
    details: dict[str, Any] = {"ignored": ignored, "format": "compressed-tensors"}
    if stage.algorithm == "smoothquant":
        details["largest_scales"] = smooth(model, rows, gather, smoothquant)
    elif stage.algorithm == "awq":
        chosen = awq(SCHEMES[stage.scheme], stage.group_size)
        details["largest_scales"] = smooth(model, rows, gather, chosen)
    # GPTQ moves errors into every later column, those that a mask took out included
    zeros = find_zeros(model) if stage.algorithm == "gptq" else {}
    oneshot, modifier = _llmcompressor(stage, ignored)
    calibration: DataLoader[dict[str, torch.Tensor]] = DataLoader(
        [_inputs(row) for row in rows],  # type: ignore[arg-type]
        batch_size=None,
    )
    quantized: PreTrainedModel = oneshot(
        model=model,
        dataset=calibration,
        recipe=[modifier],
        num_calibration_samples=len(rows),
        clear_sparse_session=True,
    )
    put_back(zeros, quantized)  # zero is on every grid, so scales stay as they are
    return Outcome(quantized, details, (SIMULATED,))


def _llmcompressor(
    stage: QuantizePtq, ignored: list[str]
) -> tuple[Callable[..., PreTrainedModel], Any]:
    """Imported late: it costs seconds and only this stage needs it."""
    try:
        from llmcompressor.entrypoints.oneshot import oneshot
        from llmcompressor.modifiers.gptq import GPTQModifier
        from llmcompressor.modifiers.quantization import QuantizationModifier
    except ImportError as error:
        raise BadInput(
            "ptq needs llmcompressor", "Install the extra: pip install 'retort-distill[quantize]'."
        ) from error
    _log_to_stderr()
    kind = GPTQModifier if stage.algorithm == "gptq" else QuantizationModifier
    group = config_group(stage.scheme, stage.group_size)
    return oneshot, kind(config_groups={"group_0": group}, ignore=ignored)


def _log_to_stderr() -> None:
    """llmcompressor logs to standard output from its import on, where our events go."""
    from loguru import logger

    logger.remove()
    logger.add(sys.stderr, level="WARNING")


def _inputs(row: TokenRow) -> dict[str, torch.Tensor]:
    ids = torch.from_numpy(row.ids.astype("int64"))[None]
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
