"""A compressed model in vLLM against the same directory in transformers.

An export counts only once the engine it is for has loaded it and answered alike. Both sides see
the same token ids and compute in the dtype that the model was saved in.
"""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel

from trainer.compress.report import ServingComparison
from trainer.compress.vllm_server import Engine, Server, serve
from trainer.device import at_work
from trainer.loading import end_ids, load_model, load_tokenizer, read_config
from trainer.measurement import Speed

LIMIT = 0.05
"""Nats: what the mean |difference of log-probability| may be at most."""
BATCH_ROWS = 25
IN_FLIGHT = 64
TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Answer:
    """A greedy completion and the log-probability of each of its tokens."""

    tokens: list[int]
    logprobs: list[float]


def compare_with_vllm(
    model_dir: Path,
    prompts: Sequence[Sequence[int]],
    engine: Engine,
    log: Path,
    max_new_tokens: int = 64,
) -> ServingComparison:
    """Serve `model_dir` and compare it on `prompts`, token ids each.

    transformers answers greedily; vLLM then scores those very tokens (teacher-forced) and also
    answers greedily itself. Raises ServerFailed where vLLM doesn't load the model.
    """
    model = load_model(model_dir)
    ends = end_ids(model, load_tokenizer(model_dir))
    answers = answer_in_transformers(model, prompts, max_new_tokens, ends)
    length = max(map(len, prompts)) + max_new_tokens + 1
    dtype = str(model.dtype).removeprefix("torch.")
    with serve(engine, model_dir, dtype, length, log) as server:
        prefill = _prefill(server, model_dir.name, prompts)
        scored = _score(server, model_dir.name, prompts, answers)
        started = time.monotonic()
        generated = _generate(server, model_dir.name, prompts, max_new_tokens)
        seconds = time.monotonic() - started
    differences = [
        abs(ours - theirs)
        for answer, row in zip(answers, scored, strict=True)
        for ours, theirs in zip(answer.logprobs, row, strict=True)
    ]
    found = _summary(differences, answers, generated, dtype, seconds, server, engine)
    return found.model_copy(update={"vllm_prefill_tokens_per_s": prefill})


def measure_in_vllm(
    model_dir: str | Path,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    engine: Engine,
    log: Path,
) -> Speed:
    """vLLM's speed with a model on prompts, token ids each, all in flight at once. Raises
    ServerFailed where vLLM doesn't load it."""
    dtype = str(read_config(model_dir).get("dtype") or "auto")
    length = max(map(len, prompts)) + max_new_tokens + 1
    place = Path(model_dir)
    with serve(engine, place, dtype, length, log) as server:
        prefill = _prefill(server, place.name, prompts)
        started = time.monotonic()  # the prompts' keys and values are held: what is timed is decode
        generated = _generate(server, place.name, prompts, max_new_tokens)
        seconds = time.monotonic() - started
    behind = sum(map(len, generated)) - len(generated)
    return Speed(
        engine=f"{engine.wheel} {engine.version}",
        prefill_tokens_per_s=prefill,
        decode_tokens_per_s=behind / seconds if behind else None,
    )


def answer_in_transformers(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    ends: frozenset[int],
) -> list[Answer]:
    """Greedy completions, up to and with the first token of `ends`, in the prompts' order."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    answers: dict[int, Answer] = {}
    with at_work(model):
        for start in range(0, len(order), BATCH_ROWS):
            part = order[start : start + BATCH_ROWS]
            tokens = _greedy(model, [prompts[i] for i in part], max_new_tokens, ends)
            logprobs = _logprobs(model, [prompts[i] for i in part], tokens)
            told = zip(part, tokens, logprobs, strict=True)
            answers |= {i: Answer(own, row) for i, own, row in told}
    return [answers[i] for i in range(len(prompts))]


def _greedy(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    ends: frozenset[int],
) -> list[list[int]]:
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(p)) + list(p) for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    with torch.inference_mode():
        made = model.generate(  # type: ignore[operator]
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            eos_token_id=sorted(ends),
            pad_token_id=min(ends, default=0),
        )
    return [until_end(row, ends) for row in made[:, width:].tolist()]


def until_end(tokens: list[int], ends: frozenset[int]) -> list[int]:
    """The tokens up to and with the first that ends an answer."""
    for index, token in enumerate(tokens):
        if token in ends:
            return tokens[: index + 1]
    return tokens


def _logprobs(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], completions: Sequence[list[int]]
) -> list[list[float]]:
    wholes = [list(p) + c for p, c in zip(prompts, completions, strict=True)]
    width = max(map(len, wholes))
    ids = torch.tensor([whole + [0] * (width - len(whole)) for whole in wholes])
    mask = torch.tensor([[1] * len(whole) + [0] * (width - len(whole)) for whole in wholes])
    with torch.inference_mode():
        logits: Tensor = model(
            input_ids=ids.to(model.device), attention_mask=mask.to(model.device), use_cache=False
        ).logits.cpu()
    rows = []
    for row, prompt, whole in zip(range(len(wholes)), prompts, wholes, strict=True):
        # position t predicts token t + 1
        predicted = F.log_softmax(logits[row, len(prompt) - 1 : len(whole) - 1].float(), dim=-1)
        targets = ids[row, len(prompt) : len(whole), None]
        rows.append(predicted.gather(1, targets)[:, 0].tolist())
    return rows


def _prefill(server: Server, name: str, prompts: Sequence[Sequence[int]]) -> float:
    """Prompt tokens per second, each prompt seen for the first time."""
    bodies = [{"prompt": list(p), "max_tokens": 1, "temperature": 0} for p in prompts]
    started = time.monotonic()
    _ask(server, name, bodies)
    return sum(map(len, prompts)) / (time.monotonic() - started)


def _score(
    server: Server, name: str, prompts: Sequence[Sequence[int]], answers: Sequence[Answer]
) -> list[list[float]]:
    """vLLM's log-probabilities of each answer's tokens."""
    bodies = [
        {"prompt": list(p) + a.tokens, "max_tokens": 1, "temperature": 0, "prompt_logprobs": 0}
        for p, a in zip(prompts, answers, strict=True)
    ]
    choices = _ask(server, name, bodies)
    rows = []
    for prompt, answer, choice in zip(prompts, answers, choices, strict=True):
        positions = choice["prompt_logprobs"][len(prompt) :]
        pairs = zip(positions, answer.tokens, strict=True)
        rows.append([float(known[str(token)]["logprob"]) for known, token in pairs])
    return rows


def _generate(
    server: Server, name: str, prompts: Sequence[Sequence[int]], max_new_tokens: int
) -> list[list[int]]:
    bodies = [
        {
            "prompt": list(p),
            "max_tokens": max_new_tokens,
            "temperature": 0,
            "return_token_ids": True,
        }
        for p in prompts
    ]
    return [list(choice["token_ids"]) for choice in _ask(server, name, bodies)]


def _ask(server: Server, name: str, bodies: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first choice of each completion, in order, several requests in flight."""
    with httpx.Client(base_url=server.url, timeout=TIMEOUT_S) as client:

        def ask(body: dict[str, Any]) -> dict[str, Any]:
            answer = client.post("/v1/completions", json={"model": name, **body})
            answer.raise_for_status()
            choice: dict[str, Any] = answer.json()["choices"][0]
            return choice

        with ThreadPoolExecutor(IN_FLIGHT) as pool:
            return list(pool.map(ask, bodies))


def _summary(
    differences: Sequence[float],
    answers: Sequence[Answer],
    generated: Sequence[list[int]],
    dtype: str,
    seconds: float,
    server: Server,
    engine: Engine,
) -> ServingComparison:
    mean = sum(differences) / len(differences)
    behind = sum(map(len, generated)) - len(generated)
    shared = [shared_prefix(a.tokens, tokens) for a, tokens in zip(answers, generated, strict=True)]
    equal = [a.tokens == tokens for a, tokens in zip(answers, generated, strict=True)]
    return ServingComparison(
        passed=mean <= LIMIT,
        prompts=len(answers),
        tokens=len(differences),
        dtype=dtype,
        mean_logprob_difference=mean,
        limit=LIMIT,
        equal_completions=sum(equal) / len(equal),
        equal_tokens=sum(shared) / len(differences),
        vllm_tokens_per_s=sum(map(len, generated)) / seconds,
        vllm_decode_tokens_per_s=behind / seconds if behind else None,
        ready_s=server.ready_s,
        vllm_version=f"{engine.wheel} {engine.version}",
    )


def shared_prefix(ours: Sequence[int], theirs: Sequence[int]) -> int:
    """How many tokens the two have in common before they first differ."""
    pairs = enumerate(zip(ours, theirs, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(ours), len(theirs)))
