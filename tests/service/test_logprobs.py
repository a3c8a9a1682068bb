from typing import Any

import pytest

from service.logprobs import NoLogprobsError, read_chat_signal, read_prompt_signal


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


def entry(logprob: float, rank: int) -> dict[str, Any]:
    return {"logprob": logprob, "rank": rank, "decoded_token": "?"}


PLACES = [
    None,
    {"7": entry(-0.1, 1), "3": entry(-3.0, 2)},
    {"9": entry(-8.0, 41), "5": entry(-0.2, 1), "2": entry(-2.0, 2)},
]
"""What vLLM 0.32 sends of the prompt 1, 7, 9 with prompt_logprobs 2; 9 is none of the likeliest."""


def test_the_log_probs_of_a_prompt_are_read_from_where_it_is_scored() -> None:
    whole = read_prompt_signal({"prompt_logprobs": PLACES}, (1, 7, 9), 1, 2)
    assert whole.token_ids == (7, 9)
    assert whole.top_ids == ((7, 3), (5, 2))
    assert whole.top_logprobs == ((-0.1, -3.0), (-0.2, -2.0))
    assert whole.logprobs == (-0.1, -8.0)
    assert read_prompt_signal({"prompt_logprobs": PLACES}, (1, 7, 9), 2, 2).token_ids == (9,)


@pytest.mark.parametrize(
    ("given", "ids", "top_k", "words"),
    [
        ({}, (1, 7, 9), 2, "no prompt_logprobs for each token"),
        ({"prompt_logprobs": PLACES[:2]}, (1, 7, 9), 2, "no prompt_logprobs for each token"),
        ({"prompt_logprobs": PLACES}, (1, 7, 8), 2, "lack the prompt's own token 8"),
        ({"prompt_logprobs": PLACES}, (1, 7, 9), 3, "2 log-probs a token, asked were 3"),
    ],
)
def test_what_a_prompt_is_lacking_is_named(
    given: dict[str, Any], ids: tuple[int, ...], top_k: int, words: str
) -> None:
    with pytest.raises(NoLogprobsError, match=words):
        read_prompt_signal(given, ids, 1, top_k)
