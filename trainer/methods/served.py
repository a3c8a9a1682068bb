"""Distillation towards a teacher that another process serves: its likeliest tokens and the rest.

K kept positions, k entries a position.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from urllib.parse import urlsplit

import numpy as np
import torch
from torch import Tensor

from prompts.signal import TopKRow
from trainer.batch import Batch
from trainer.data import TokenRow
from trainer.errors import BadInput
from trainer.methods.method import Setting
from trainer.methods.off_policy import mixed
from trainer.methods.on_policy import drawing_of, own_answers_of
from trainer.objectives import DIVERGENCES, Term
from trainer.objectives.stored import top_k_term
from trainer.rollout import Drawing
from trainer.served import ServedTeacher
from trainer.spec import ServedKL
from trainer.student import Losses, Objective, Seen, head_of

CHECKED_ROWS = 16
"""Of which both sides' tokens are compared before the first step."""
FIRST_PATIENCE_S, FIRST_TIMEOUT_S = 5.0, 10.0
"""A URL that is wrong is told soon; a teacher that has answered once is waited for longer."""


def find_served(spec: ServedKL) -> ServedTeacher:
    """The teacher, which has answered a first question; BadInput where it doesn't, soon."""
    if not _is_url(spec.teacher):
        raise BadInput(
            f"teacher: {spec.teacher} is no URL",
            "Without the service a served teacher is named by its API's URL, ending in /v1.",
        )
    teacher = ServedTeacher(
        spec.teacher.rstrip("/"),
        spec.served_model or spec.teacher,
        spec.top_k,
        spec.in_flight,
        _key(spec),
    )
    replace(teacher, patience_s=FIRST_PATIENCE_S, timeout_s=FIRST_TIMEOUT_S).tokenize("a")
    return teacher


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # its port or its IPv6 address is none
        return False


def served_kl(spec: ServedKL, setting: Setting) -> Objective:
    """A divergence over k + 1 outcomes, on the rows or on the student's own answers."""
    teacher = find_served(spec)
    setting.emit("phase", {"name": "teacher", "detail": f"{teacher.model} at {teacher.url}"})
    drawing = None
    if spec.student_share > 0:
        drawing = drawing_of(spec, setting, spec.sampling_temperature)
    check_served(teacher, setting, drawing)
    divergence = DIVERGENCES[spec.divergence.kind](spec.divergence)
    size = len(head_of(setting.model).weight)

    def losses(seen: Seen, targets: Tensor, batch: Batch) -> Losses:
        found = teacher.thoughts(batch.rows) if batch.kept and spec.cross_entropy_weight < 1 else []
        _check_known(found, size)
        ids, logprobs, tail = _tensors(found, spec.top_k, batch.input_ids.device)
        term: Term = top_k_term(divergence, ids, logprobs, tail, 1.0)
        return Losses(mixed(spec.divergence.kind, term, targets, spec.cross_entropy_weight))

    if drawing is None:
        return Objective(losses)
    return Objective(losses, own_answers_of(spec, drawing, setting))


def check_served(teacher: ServedTeacher, setting: Setting, drawing: Drawing | None) -> None:
    """It makes the student's tokens of the rows, knows no others, and holds the longest row, or
    the longest answer that may be drawn."""
    step = max(1, len(setting.rows) // CHECKED_ROWS)
    for row in setting.rows[::step]:
        text = setting.tokenizer.decode(row.ids.tolist())
        ours = setting.tokenizer(text, add_special_tokens=False)["input_ids"]
        theirs, longest = teacher.tokenize(str(text))
        if ours != theirs:
            raise BadInput(
                "student and served teacher have different vocabularies",
                f"Of row {row.row} they make {ours[:8]} and {theirs[:8]}. A KL needs one: use "
                "sequence_level, or uld with the teacher in the process.",
            )
    tokens, what = max(len(row.ids) for row in setting.rows), "the longest row has"
    if drawing is not None:
        what = "a row with its answer may have"
        prompts = {row.prompt_tokens for row in setting.rows}
        tokens = max(tokens, *(prompt + drawing.room(prompt) for prompt in prompts))
    if longest is not None and tokens >= longest:
        raise BadInput(
            f"the served teacher holds {longest} tokens and {what} {tokens}",
            f"It needs room for one more. Set optimization.max_length to {longest - 1}, or serve "
            "it with a larger --max-model-len.",
        )
    probe: TokenRow = min(setting.rows, key=lambda row: len(row.ids))
    _check_known(teacher.thoughts([probe]), len(head_of(setting.model).weight))


def _check_known(found: Sequence[TopKRow], size: int) -> None:
    """Its head may be padded further than the student's, and what lies there be likely at times."""
    highest = max((int(row.ids.max()) for row in found), default=-1)
    if highest >= size:
        raise BadInput(
            "the served teacher knows more tokens than the student's head",
            f"It speaks of token {highest}, the head has {size}. Resize the student's embeddings.",
        )


def _key(spec: ServedKL) -> str | None:
    if spec.api_key_env is None:
        return None
    key = os.environ.get(spec.api_key_env)
    if not key:
        raise BadInput(
            f"api_key_env: {spec.api_key_env} is not set",
            "The teacher's key is read from that variable of the trainer's process.",
        )
    return key


def _tensors(
    found: Sequence[TopKRow], k: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """ids [K, k], log-probs [K, k], tail [K]"""
    ids = np.concatenate([np.zeros((0, k), np.int64), *(row.ids for row in found)])
    logprobs = np.concatenate([np.zeros((0, k), np.float32), *(row.logprobs for row in found)])
    tail = np.concatenate([np.zeros(0, np.float32), *(row.tail_logprob for row in found)])
    made = (torch.from_numpy(one).to(device) for one in (ids, logprobs, tail))
    first, second, third = made
    return first, second, third
