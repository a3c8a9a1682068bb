"""How well a model predicts the completions of calibration rows. B batch, T tokens.

Prompts are given, not predicted: a student that was trained on completions alone is at a loss with
them, and their loss would be nearly all that a choice went by.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel

from trainer.compress.activations import padded, parts
from trainer.data import TokenRow


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
        ids, mask = padded(part, model.device)
        prompts = torch.tensor([row.prompt_tokens for row in part], device=ids.device)
        learnt = mask & (torch.arange(ids.shape[1], device=ids.device) >= prompts[:, None])
        logits = model(input_ids=ids, attention_mask=mask.long(), use_cache=False).logits
        # position t predicts token t + 1
        targets, kept = ids[:, 1:], learnt[:, 1:]
        loss = F.cross_entropy(logits[:, :-1][kept].float(), targets[kept], reduction="sum")
        yield loss, int(kept.sum())
