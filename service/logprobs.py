"""Log-probs over the OpenAI-compatible API, as vLLM gives them: asked for and read.

Of a chat's answer: tokens come as ids ('token_id:17'), for two tokens may be spelt alike. vLLM puts
the token that was chosen first and cuts the list at k, so where the choice is not among the k
likeliest, it stands in for the last of them; the mass outside the kept ones is right either way.

Of a given prompt (`prompt_logprobs`): for each place what the tokens before it foretell, by token
id and with its rank, the k likeliest and the prompt's own token; nothing for the first place.
"""

from collections.abc import Mapping, Sequence
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


def read_prompt_signal(
    choice: Mapping[str, Any], ids: Sequence[int], scored_from: int, top_k: int
) -> CallSignal:
    """The signal of a prompt's ids from a place on. Raises NoLogprobsError."""
    listed = choice.get("prompt_logprobs")
    if not isinstance(listed, list) or len(listed) != len(ids) or not 0 < scored_from <= len(ids):
        raise NoLogprobsError("it sends no prompt_logprobs for each token of a prompt; vLLM does")
    own, found = tuple(ids[scored_from:]), []
    for token, place in zip(own, listed[scored_from:], strict=True):
        if not isinstance(place, dict) or str(token) not in place:
            raise NoLogprobsError(f"its log-probs of a prompt lack the prompt's own token {token}")
        found.append(_likeliest(place, top_k))
    return CallSignal(
        token_ids=own,
        top_ids=tuple(tuple(token for token, _ in entries) for entries in found),
        top_logprobs=tuple(tuple(logprob for _, logprob in entries) for entries in found),
        logprobs=tuple(
            float(place[str(token)]["logprob"])
            for token, place in zip(own, listed[scored_from:], strict=True)
        ),
    )


def _likeliest(place: Mapping[str, Any], top_k: int) -> list[tuple[int, float]]:
    """The k of the best rank: the prompt's own token comes on top of them where it isn't one."""
    ranked = sorted(place.items(), key=lambda entry: entry[1]["rank"])[:top_k]
    if len(ranked) < top_k:
        raise NoLogprobsError(f"{len(ranked)} log-probs a token, asked were {top_k}")
    return [(int(token), float(entry["logprob"])) for token, entry in ranked]


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
