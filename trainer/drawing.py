"""Draws from a distribution by numbers between 0 and 1. B rows, V vocabulary, n draws a row."""

import torch
from torch import Tensor


def inverted(logprobs: Tensor, chances: Tensor) -> Tensor:
    """[B, V], [B, n] in fp64 -> [B, n]: the token in whose share of the whole each chance falls.

    In fp64: a sum over a large vocabulary in fp32 loses the rare tokens. What has no share is never
    chosen.
    """
    shares = logprobs.double().exp().cumsum(dim=-1)
    reached = chances * shares[:, -1:]
    return torch.searchsorted(shares, reached, right=True).clamp(max=logprobs.shape[-1] - 1)
