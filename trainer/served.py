"""A teacher that another process serves: what it thinks of given tokens, over HTTP.

vLLM's `/v1/completions` takes tokens as ids and gives, by `prompt_logprobs`, the k likeliest tokens
at each place at temperature 1; its `/tokenize` says what it makes of a text.

T tokens of a completion, k entries a token.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from prompts.signal import TopKRow, top_k_row
from trainer.data import TokenRow
from trainer.errors import BadInput
from trainer.posting import PATIENCE_S, TIMEOUT_S, Refused, post


@dataclass(frozen=True)
class ServedTeacher:
    """Where a teacher is asked, and for how much."""

    url: str
    """Of the OpenAI-compatible API; ends in /v1."""
    model: str
    top_k: int
    in_flight: int
    key: str | None = None
    sleep: Callable[[float], None] = time.sleep
    patience_s: float = PATIENCE_S
    timeout_s: float = TIMEOUT_S

    def thoughts(self, rows: Sequence[TokenRow]) -> list[TopKRow]:
        """What it thinks at each completion token of each row, asked side by side."""
        with ThreadPoolExecutor(self.in_flight) as pool:
            return list(pool.map(self._thought, rows))

    def tokenize(self, text: str) -> tuple[list[int], int | None]:
        """What it makes of a text, special tokens as they are written; how many tokens fit it."""
        body = {"model": self.model, "prompt": text, "add_special_tokens": False}
        said = self._post(self.url.removesuffix("/v1") + "/tokenize", body)
        try:
            longest = said.get("max_model_len")
            return [int(one) for one in said["tokens"]], longest and int(longest)
        except (KeyError, TypeError, ValueError) as error:
            raise BadInput(
                f"{self.url} doesn't say how it makes tokens",
                "Its /tokenize is asked whether it has the student's. Serve the teacher with vLLM.",
            ) from error

    def _thought(self, row: TokenRow) -> TopKRow:
        body = {
            "model": self.model,
            "prompt": row.ids.tolist(),
            "max_tokens": 1,
            "temperature": 0.0,
            "prompt_logprobs": self.top_k,
        }
        said = self._post(f"{self.url}/completions", body)
        return read_thought(said, row, self.top_k)

    def _post(self, url: str, body: dict[str, Any]) -> dict[str, Any]:
        try:
            return post(url, body, self.key, self.sleep, self.patience_s, self.timeout_s)
        except Refused as error:
            raise _refused(self, error) from error
        except ConnectionError as error:
            raise BadInput(
                "the served teacher can't be reached",
                f"{error}. Start its server, or mend its URL. Started again, a training goes on "
                "from its last complete checkpoint.",
            ) from error


def read_thought(said: Mapping[str, Any], row: TokenRow, top_k: int) -> TopKRow:
    """The k likeliest at each completion token. BadInput where the answer doesn't hold them."""
    try:
        places = said["choices"][0]["prompt_logprobs"]
        if len(places) != len(row.ids):
            raise ValueError(f"{len(places)} places for {len(row.ids)} tokens")
        ranked = [_likeliest(place, top_k) for place in places[row.prompt_tokens :]]
        ids, logprobs = (
            np.asarray([[one[part] for one in place] for place in ranked]) for part in (0, 1)
        )
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise BadInput(
            "the teacher's server sends no log-probs of a prompt as vLLM does",
            f"For row {row.row}: {error}. `prompt_logprobs: {top_k}` was asked for; serve the "
            "teacher with vLLM, or record a signal and use stored_kl.",
        ) from error
    own = row.ids[row.prompt_tokens :]
    return top_k_row(own, ids.astype(np.int32), logprobs.astype(np.float32))


def _likeliest(place: Mapping[str, Any], top_k: int) -> list[tuple[int, float]]:
    """The row's own token comes beside the k where it isn't one of them."""
    found = sorted(place.items(), key=lambda entry: int(entry[1]["rank"]))[:top_k]
    if len(found) < top_k:
        raise ValueError(f"{len(found)} log-probs a token, asked were {top_k}")
    return [(int(token), float(entry["logprob"])) for token, entry in found]


def _refused(teacher: ServedTeacher, error: Refused) -> BadInput:
    what = {
        400: f"more than its --max-logprobs may be asked for (top_k is {teacher.top_k}), or rows "
        "are longer than it holds",
        401: "api_key_env names the variable of its key",
        403: "its key may not do this",
        404: f"served_model {teacher.model!r}, or the URL, may be wrong",
    }.get(error.status, "look at its log")
    return BadInput(
        f"the teacher's server refuses with {error.status}: {what}", error.told[:600] or "-"
    )
