"""Comparing next-token distributions over different vocabularies.

K kept positions, V and V' vocabularies.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from trainer.objectives.divergences import tempered
from trainer.objectives.head import Head, Term


def sorted_distance(student_logits: Tensor, teacher_logits: Tensor, tau: float) -> Tensor:
    """Sum of |p_(i) - q_(i)| over ranks i, the shorter padded with zeros (arXiv:2402.12030, 3.2):
    the Wasserstein-1 distance of the two sets of probabilities. [K, V], [K, V'] -> [K]."""
    q = tempered(student_logits, tau).exp().sort(dim=-1, descending=True).values
    p = tempered(teacher_logits, tau).exp().sort(dim=-1, descending=True).values
    size = max(p.shape[-1], q.shape[-1])
    p, q = (F.pad(one, (0, size - one.shape[-1])) for one in (p, q))
    return (p - q).abs().sum(dim=-1)


def sorted_distance_term(teacher_hidden: Tensor, head: Head, places: Tensor, tau: float) -> Term:
    """The distance where the same text lies behind both models, zero elsewhere.

    teacher_hidden [K', D']; places [K] the teacher's kept position beside each of the student's,
    -1 where there is none.
    """

    def term(logits: Tensor, part: slice) -> Tensor:
        here = (places[part] >= 0).nonzero().squeeze(1)
        with torch.no_grad():
            teacher_logits = head.logits(teacher_hidden[places[part][here]])
        found = sorted_distance(logits[here], teacher_logits, tau)
        return found.new_zeros(len(logits)).index_add(0, here, found)

    return term
