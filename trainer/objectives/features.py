"""Losses on what happens inside a model.

B batch, T tokens, D student's width, D' teacher's width, K kept positions, h relation heads.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from trainer.objectives.divergences import upcast


def hidden_distance(student: Tensor, teacher: Tensor, distance: Literal["mse", "cosine"]) -> Tensor:
    """[K, D'], [K, D'] -> [K]: mean squared difference over the width, or 1 - cosine."""
    student, teacher = upcast(student), upcast(teacher)
    if distance == "mse":
        return (student - teacher).square().mean(dim=-1)
    return 1 - torch.cosine_similarity(student, teacher, dim=-1)


def relation_kl(student: Tensor, teacher: Tensor, heads: int, seen: Tensor) -> Tensor:
    """KL(teacher || student) of self-attention relations (arXiv:2012.15828, eq. 5 on): [B, T].

    student [B, T, W], teacher [B, T, W'] are queries, or keys, or values, of all heads joined;
    re-split into `heads`. A position's relation is the softmax of its scaled dot-products with the
    positions that it sees, `seen` [B, T, T]; averaged over heads. A position must see itself.
    """
    log_p, log_q = _relations(teacher, heads, seen), _relations(student, heads, seen)
    gap = torch.where(seen[:, None], log_p - log_q, torch.zeros_like(log_q))
    return (log_p.exp() * gap).sum(dim=-1).mean(dim=1)


def _relations(states: Tensor, heads: int, seen: Tensor) -> Tensor:
    """[B, T, W] -> log relations [B, h, T, T]"""
    split = upcast(states).unflatten(-1, (heads, -1)).transpose(1, 2)
    with torch.autocast(split.device.type, enabled=False):  # it would narrow what was widened
        scores = split @ split.transpose(-1, -2) / math.sqrt(split.shape[-1])
        relations: Tensor = scores.masked_fill(~seen[:, None], -torch.inf).log_softmax(dim=-1)
    return relations
