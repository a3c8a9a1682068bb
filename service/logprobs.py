"""Log-probs over the OpenAI-compatible API, as vLLM gives them: asked for and read.

Tokens come as ids ('token_id:17'), for two tokens may be spelt alike. vLLM puts the token that was
chosen first and cuts the list at k, so where the choice is not among the k likeliest, it stands in
for the last of them; the mass outside the kept ones is right either way.
"""

from collections.abc import Mapping
from typing import Any

from prompts.record import CallSignal

_PREFIX = "token_id:"


class NoLogprobsError(Exception):
    """The answer holds no log-probs, or not those that were asked for; the message says which."""


def signal_parameters(top_k: int) -> dict[str, Any]:
    """What a chat request must say to get a signal."""
    return {
        "logprobs": True,
        "top_logprobs": top_k,
        "return_tokens_as_token_ids": True,
        "return_token_ids": True,
    }


def read_chat_signal(choice: Mapping[str, Any], top_k: int) -> CallSignal:
    """The signal of a chat choice. Raises NoLogprobsError."""
    tokens = (choice.get("logprobs") or {}).get("content")
    ids = choice.get("token_ids")
    if not isinstance(tokens, list) or not isinstance(ids, list):
        raise NoLogprobsError("it sends no token ids with its log-probs; vLLM does")
    found = [_entries(token, top_k) for token in tokens]
    chosen = tuple(_token_id(token) for token in tokens)
    if chosen != tuple(ids):
        raise NoLogprobsError(f"log-probs of {len(chosen)} tokens for {len(ids)} token ids")
    return CallSignal(
        token_ids=chosen,
        top_ids=tuple(tuple(entry[0] for entry in entries) for entries in found),
        top_logprobs=tuple(tuple(entry[1] for entry in entries) for entries in found),
        logprobs=tuple(float(token["logprob"]) for token in tokens),
    )


def _entries(token: Mapping[str, Any], top_k: int) -> list[tuple[int, float]]:
    listed = token.get("top_logprobs") or []
    if len(listed) < top_k:
        raise NoLogprobsError(f"{len(listed)} log-probs a token, asked were {top_k}")
    return [(_token_id(entry), float(entry["logprob"])) for entry in listed[:top_k]]


def _token_id(entry: Mapping[str, Any]) -> int:
    name = str(entry.get("token"))
    if not name.startswith(_PREFIX):
        raise NoLogprobsError(f"it calls a token {name!r} in place of its id; vLLM gives ids")
    return int(name.removeprefix(_PREFIX))
