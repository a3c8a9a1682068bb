"""How well a model predicts the completions of calibration rows. B batch, T tokens.

Prompts are given, not predicted: a student that was trained on completions alone is at a loss with
them, and their loss would be nearly all that a choice went by.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from trainer.compress.activations import parts
from trainer.data import TokenRow, collate
from trainer.objectives import cross_entropy, keep


@torch.inference_mode()
def mean_loss(model: PreTrainedModel, rows: Sequence[TokenRow]) -> float:
    """Next-token cross-entropy of the rows' completions, nats per token."""
    found = [(float(loss), tokens) for loss, tokens in completion_losses(model, rows)]
    return sum(loss for loss, _ in found) / sum(tokens for _, tokens in found)


def completion_losses(
    model: PreTrainedModel, rows: Sequence[TokenRow]
) -> Iterator[tuple[Tensor, int]]:
    """For each batch the summed cross-entropy of its completions' tokens, each given those before,
    nats; and how many they are."""
    for part in parts(rows):
        batch = collate(part)
        ids, mask = (batch[name].to(model.device) for name in ("input_ids", "completion_mask"))
        # Padding is on the right, where no real token sees it.
        kept, targets = keep(model(input_ids=ids, use_cache=False).logits, ids, mask)
        yield cross_entropy(kept, targets).sum(), len(targets)
