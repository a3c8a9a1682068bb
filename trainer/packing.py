"""Whether a model can tell packed rows apart.

T tokens, D width.
"""

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from trainer.batch import Batch, pack, pad
from trainer.data import TokenRow
from trainer.errors import BadInput
from trainer.student import look

ROW_TOKENS = 8
TOLERANCE = {torch.bfloat16: 0.05, torch.float16: 0.01}
"""Of the largest hidden value: packed rows take another attention kernel with its own rounding."""
TOLERANCE_FP32 = 1e-3
KEPT_APART = {"full_attention", "sliding_attention"}
"""Kinds of layers for which there are masks; 16 bits would hide what others let through."""


def check_packing(side: str, model: PreTrainedModel) -> None:
    """BadInput where two rows packed together aren't what each is alone: masks and positions keep
    attention within a row, and nothing keeps a recurrent state, or a model that places tokens in a
    way of its own."""
    kinds = set(model.config.get_text_config().to_dict().get("layer_types") or ()) - KEPT_APART
    if kinds:
        raise _refused(side, model, f"It has layers of {', '.join(sorted(kinds))}.")
    ids = np.arange(2 * ROW_TOKENS, dtype=np.int32) % model.config.get_text_config().vocab_size
    rows = [TokenRow(str(n), part, 1) for n, part in enumerate(np.split(ids, 2))]
    alone = torch.cat([_hidden(model, pad([row])) for row in rows])
    try:
        packed = _hidden(model, pack(rows, 2 * ROW_TOKENS))
    except (BadInput, torch.OutOfMemoryError):
        raise
    except (RuntimeError, ValueError, TypeError, KeyError, IndexError) as error:
        raise _refused(side, model, f"It fails on them: {str(error)[:200]}.") from error
    furthest = float((packed - alone).abs().max() / alone.abs().max().clamp(min=1e-30))
    if not furthest <= TOLERANCE.get(model.dtype, TOLERANCE_FP32):
        raise _refused(side, model, f"A row next to another differs by {furthest:.1%}.")


@torch.no_grad()
def _hidden(model: PreTrainedModel, batch: Batch) -> Tensor:
    """[T, D] of all rows, one after the other."""
    return look(model, batch.to(model.device)).hidden.flatten(0, 1).float()


def _refused(side: str, model: PreTrainedModel, told: str) -> BadInput:
    return BadInput(
        f"optimization.packing: the {side} can't keep packed rows apart",
        f"{told} Set packing to false for {type(model).__name__}.",
    )
