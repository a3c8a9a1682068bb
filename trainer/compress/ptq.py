"""Post-training quantization by llmcompressor, saved in compressed-tensors' format.

Round-to-nearest takes each channel's largest weight as its scale; GPTQ (arXiv:2210.17323) rounds
column by column and lets later columns mend earlier errors on the calibration rows.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from trainer.compress.layout import find_layers, find_linears
from trainer.compress.outcome import Outcome
from trainer.data import TokenRow
from trainer.errors import BadInput
from trainer.spec import QuantizePtq

SIMULATED = (
    "transformers computes with dequantized weights and rounded activations, so its tokens/s says "
    "nothing of int8 kernels; look at vLLM's"
)


def apply(stage: QuantizePtq, model: PreTrainedModel, rows: Sequence[TokenRow]) -> Outcome:
    """Quantize every linear of the decoder layers; `save_pretrained` then writes int8 weights.

    The model must have been loaded from a directory with its tokenizer. Raises BadInput where
    llmcompressor isn't installed or the layers hold no linears.
    """
    for layer in find_layers(model).layers:
        find_linears(layer)
    # The head stays in the model's own type: it is tied to the embeddings more often than not.
    head = model.get_output_embeddings()
    ignored = [name for name, module in model.named_modules() if module is head]
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
    details: dict[str, Any] = {"ignored": ignored, "format": "compressed-tensors"}
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
    kinds = {"rtn": QuantizationModifier, "gptq": GPTQModifier}
    modifier = kinds[stage.algorithm](targets="Linear", scheme=stage.scheme, ignore=ignored)
    return oneshot, modifier


def _log_to_stderr() -> None:
    """llmcompressor logs to standard output from its import on, where our events go."""
    from loguru import logger

    logger.remove()
    logger.add(sys.stderr, level="WARNING")


def _inputs(row: TokenRow) -> dict[str, torch.Tensor]:
    ids = torch.from_numpy(row.ids.astype("int64"))[None]
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
