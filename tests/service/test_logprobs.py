from typing import Any

import pytest

from service.logprobs import NoLogprobsError, read_chat_signal


def choice(**changes: Any) -> dict[str, Any]:
    """What vLLM 0.32 sends of a chat choice."""
    tops = [{"token": "token_id:7", "logprob": -0.1}, {"token": "token_id:3", "logprob": -3.0}]
    content = [{"token": "token_id:7", "logprob": -0.1, "top_logprobs": tops}]
    return {"logprobs": {"content": content}, "token_ids": [7]} | changes


def test_ids_and_log_probs_of_a_chat_answer_are_read() -> None:
    signal = read_chat_signal(choice(), 2)
    assert (signal.token_ids, signal.top_ids) == ((7,), ((7, 3),))
    assert (signal.top_logprobs, signal.logprobs) == (((-0.1, -3.0),), (-0.1,))


@pytest.mark.parametrize(
    ("changes", "top_k", "words"),
    [
        ({"logprobs": None}, 2, "no token ids with its log-probs"),
        ({"token_ids": None}, 2, "no token ids with its log-probs"),
        ({"token_ids": [7, 8]}, 2, "log-probs of 1 tokens for 2 token ids"),
        ({}, 3, "2 log-probs a token, asked were 3"),
        (
            {"logprobs": {"content": [{"token": "Hi", "logprob": 0, "top_logprobs": []}]}},
            0,
            "calls a token 'Hi'",
        ),
    ],
)
def test_what_is_missing_is_named(changes: dict[str, Any], top_k: int, words: str) -> None:
    with pytest.raises(NoLogprobsError, match=words):
        read_chat_signal(choice(**changes), top_k)
