"""Greedy answers, timed."""

import time

from tests.trainer.conftest import make_model
from trainer.generation import answer_greedily


def test_prompts_and_answers_are_timed_apart() -> None:
    """A model that sleeps a little for each forward pass: the first of a batch is the prompts'."""
    model, calls = make_model(), []

    def slow(*_: object) -> None:
        calls.append(1)
        time.sleep(0.02)

    model.register_forward_pre_hook(slow)
    made = answer_greedily(model, [[5, 6, 7], [8, 9]], 4, 2, frozenset())
    assert len(calls) == 4
    assert made.prompt_tokens == 5
    assert 0.02 <= made.prefill_seconds <= made.seconds - 0.06
    assert made.prefill_tokens_per_s == 5 / made.prefill_seconds
    assert made.decode_tokens_per_s == 6 / (made.seconds - made.prefill_seconds)
    once = answer_greedily(model, [[5, 6, 7]], 1, 1, frozenset())
    assert once.decode_tokens_per_s is None
