"""Judges: what they are asked about a completion, and what their reply says."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from prompts.checks.spec import JudgeCheck
from prompts.record import Judgement, Message, Reason, Seed, calls_text
from prompts.template import compile_template

REPLY_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {"reason": {"type": "string"}, "score": {"type": "number"}},
    "required": ["reason", "score"],
    "additionalProperties": False,
}
_SCORE = re.compile(r"score\W{0,8}(-?\d+(?:\.\d+)?)", re.IGNORECASE)
_OBJECT = re.compile(r"\{[^{}]*\}")
LONGEST_REASON = 2_000


def judges_of(checks: Sequence[Any]) -> tuple[JudgeCheck, ...]:
    """The judges among the checks, in their order."""
    return tuple(check for check in checks if isinstance(check, JudgeCheck))


def judge_prompt(
    judge: JudgeCheck,
    seed: Seed,
    prompt: Sequence[Message],
    completion: str,
    reasoning: str | None,
    gold: str | None,
) -> tuple[Message, ...]:
    """What a judge is asked. Raises TemplateError."""
    turns = [turn for turn in prompt if turn.role != "system"]
    shown = turns[0].content if len(turns) == 1 else _transcript(turns)
    values = {
        "rubric": judge.rubric,
        "prompt": shown,
        "completion": completion,
        "reasoning": reasoning or "",
        "gold": gold or "",
        "lowest": f"{judge.lowest:g}",
        "highest": f"{judge.highest:g}",
        "seed": seed,
    }
    return (Message(role="user", content=compile_template(judge.template).render(values)),)


def read_judgement(judge: JudgeCheck, teacher: str, text: str) -> Judgement:
    """The score and the reason in a judge's reply: of its last JSON object, else the last number
    after the word score. A score outside of the scale is none."""
    score, reason = _from_json(text)
    if score is None:
        found = _SCORE.findall(text)
        score, reason = (float(found[-1]) if found else None), text.strip()
    if score is not None and not judge.lowest <= score <= judge.highest:
        score = None
    return Judgement(teacher=teacher, score=score, reason=reason[:LONGEST_REASON])


def judged_fault(judge: JudgeCheck, judgement: Judgement) -> tuple[Reason, str] | None:
    """Why a judgement rejects a row; None if it passes."""
    if judgement.score is None:
        return Reason.NO_SCORE, f"no score from {judgement.teacher}: {judgement.reason[:300]}"
    if judgement.score >= judge.threshold:
        return None
    detail = f"{judgement.score:g} of {judge.highest:g}, asked for {judge.threshold:g}"
    return Reason.LOW_SCORE, f"{detail}: {judgement.reason[:300]}"


def _from_json(text: str) -> tuple[float | None, str]:
    for part in [text, *reversed(_OBJECT.findall(text))]:
        try:
            value = json.loads(part)
        except (ValueError, RecursionError):
            continue
        score = value.get("score") if isinstance(value, dict) else None
        if isinstance(score, int | float) and not isinstance(score, bool):
            return float(score), str(value.get("reason", ""))
    return None, ""


def _transcript(turns: Sequence[Message]) -> str:
    return "\n\n".join(f"{turn.role}: {_words(turn)}" for turn in turns)


def _words(turn: Message) -> str:
    calls = [calls_text(turn.tool_calls)] if turn.tool_calls else []
    return "\n".join([*([turn.content] if turn.content else []), *calls])
