"""How well a model predicts calibration rows. B batch, T tokens."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel

from trainer.compress.activations import batches
from trainer.data import TokenRow


@torch.inference_mode()
def mean_loss(model: PreTrainedModel, rows: Sequence[TokenRow]) -> float:
    """Next-token cross-entropy of the rows, nats per token."""
    total, tokens = 0.0, 0
    for ids, mask in batches(rows, model.device):
        loss, kept = next_token_loss(model, ids, mask)
        total, tokens = total + float(loss), tokens + kept
    return total / tokens


def next_token_loss(model: PreTrainedModel, ids: Tensor, mask: Tensor) -> tuple[Tensor, int]:
    """Summed cross-entropy of real tokens given those before, nats; and how many there are.

    ids [B, T], mask [B, T] of real tokens, padding on the right.
    """
    logits = model(input_ids=ids, attention_mask=mask.long(), use_cache=False).logits
    # position t predicts token t + 1
    targets, kept = ids[:, 1:], mask[:, 1:]
    loss = F.cross_entropy(logits[:, :-1][kept].float(), targets[kept], reduction="sum")
    return loss, int(kept.sum())
