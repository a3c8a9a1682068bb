"""Losses on a teacher's stored signal, as terms of `head_loss`.

K kept positions, V vocabulary, k stored tokens a position, n draws a position.
"""

import torch
from torch import Tensor

from trainer.objectives.divergences import Divergence, tempered
from trainer.objectives.head import Term


def top_k_term(
    divergence: Divergence,
    ids: Tensor,
    logprobs: Tensor,
    tail_logprob: Tensor,
    kd_temperature: float,
) -> Term:
    """tau^2 D over k + 1 outcomes: the k tokens of ids [K, k], and all others as one.

    logprobs [K, k] and tail_logprob [K] are the teacher's at this very temperature: the tail of
    another can't be known. Scaling the k to one, or comparing them with the student's whole
    distribution, would be biased; with the tail it goes to the dense divergence as k goes to V.
    """

    def term(logits: Tensor, part: slice) -> Tensor:
        log_q = outcomes(tempered(logits, kd_temperature), ids[part])
        log_p = torch.cat([logprobs[part], tail_logprob[part, None]], dim=-1).to(log_q)
        return divergence(log_p[:, : log_q.shape[-1]], log_q) * kd_temperature**2

    return term


def outcomes(log_q: Tensor, ids: Tensor) -> Tensor:
    """log q [K, V] of the tokens ids [K, k] and of all others together: [K, k + 1].

    [K, k] where k is V: there are no others.
    """
    chosen = log_q.gather(-1, ids)
    if ids.shape[-1] == log_q.shape[-1]:
        return chosen
    # The others are added up, not taken from one: 1 - sum loses all digits near one.
    others = log_q.scatter(-1, ids, -torch.inf).logsumexp(dim=-1, keepdim=True)
    return torch.cat([chosen, others], dim=-1)


def sampled_term(ids: Tensor, weights: Tensor, kd_temperature: float) -> Term:
    """tau^2 times minus the weighted sum of log q over drawn tokens (arXiv:2503.16870).

    ids, weights [K, n], p(id) / (n proposal(id)): the expectation is the cross-entropy
    H(p, q) = KL(p || q) + H(p), whose gradient is the forward KL's. Other divergences need p
    where nothing was drawn.
    """

    def term(logits: Tensor, part: slice) -> Tensor:
        log_q = tempered(logits, kd_temperature)
        chosen = log_q.gather(-1, ids[part])
        return -(weights[part].to(chosen) * chosen).sum(dim=-1) * kd_temperature**2

    return term
