"""MiniLLM: the reverse KL of whole answers by policy gradient (arXiv:2306.08543).

T tokens of one answer, K kept positions, V vocabulary.
"""

import torch
from torch import Tensor

from trainer.objectives.divergences import upcast
from trainer.objectives.head import Term


def returns(rewards: Tensor, discount: float, normalize: bool, own: bool) -> Tensor:
    """What follows each token of an answer: rewards [T] -> [T].

    rewards are r = log p - log q of the tokens drawn. The discount counts from the first token
    that enters a return, so an answer's value doesn't depend on how long its prompt was. With
    `own` a token's reward is in its return; without, the return starts at t + 1, and the token's
    own part is left to the exact single-step loss (section 2.2, single-step decomposition).
    `normalize` divides by the (discounted) number of tokens summed (length normalization).
    """
    summed, weight = torch.zeros_like(rewards), torch.zeros_like(rewards)
    ahead, count = rewards.new_zeros(()), rewards.new_zeros(())
    for t in range(len(rewards) - 1, -1, -1):
        with_own, count_own = rewards[t] + discount * ahead, 1 + discount * count
        summed[t], weight[t] = (with_own, count_own) if own else (ahead, count)
        ahead, count = with_own, count_own
    return summed / weight.clamp(min=1e-9) if normalize else summed


def policy_term(
    targets: Tensor, advantages: Tensor, old_logprobs: Tensor, importance: Tensor, clip: float
) -> Term:
    """Clipped policy gradient: all [K], all but the student's log-probability without gradient.

    The ratio is (q / q_old) * importance, importance = q_old / mixture of the distribution that
    the tokens were drawn from; at the first update q is q_old, and the clip bounds the importance.
    """

    def term(logits: Tensor, part: slice) -> Tensor:
        log_q = upcast(logits).log_softmax(-1).gather(-1, targets[part, None]).squeeze(-1)
        ratio = (log_q - old_logprobs[part]).exp() * importance[part]
        held = ratio.clamp(1 - clip, 1 + clip)
        return -torch.minimum(advantages[part] * ratio, advantages[part] * held)

    return term
