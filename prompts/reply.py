"""How each kind reads a completion."""

import json
from typing import Any, assert_never

from prompts.checks import Reply
from prompts.demonstrations import LABEL
from prompts.parse import parse_answer
from prompts.record import Call, Seed
from prompts.spec import CotBuild, IclBuild, InstructionBuild
from prompts.verify import gold_answer, same_number


def read_reply(spec: IclBuild | CotBuild | InstructionBuild, seed: Seed, call: Call) -> Reply:
    """What the checks look at: answer, rationale, gold answer and whether they agree."""
    match spec:
        case CotBuild():
            return _chain_of_thought(spec, seed, call)
        case IclBuild():
            return _in_context(spec, seed, call)
        case InstructionBuild():
            return Reply(call.text, call.finish_reason, rationale=call.reasoning)
    assert_never(spec)


def _chain_of_thought(spec: CotBuild, seed: Seed, call: Call) -> Reply:
    parsed = parse_answer(call.text, spec.answer_pattern)
    gold = None if seed.get(spec.gold_field) is None else _gold(spec, seed)
    compared = spec.verify == "numeric" and gold is not None and parsed.answer is not None
    return Reply(
        text=call.text,
        finish_reason=call.finish_reason,
        answer=parsed.answer,
        rationale="\n".join(part for part in (call.reasoning, parsed.rationale) if part) or None,
        gold=gold,
        right=same_number(parsed.answer or "", gold or "") if compared else None,
    )


def _in_context(spec: IclBuild, seed: Seed, call: Call) -> Reply:
    gold = None if seed.get(LABEL) is None else _as_text(seed[LABEL])
    answer = call.text.strip()
    compared = spec.verify and gold is not None
    return Reply(
        text=call.text,
        finish_reason=call.finish_reason,
        answer=answer or None,
        rationale=call.reasoning,
        gold=gold,
        right=answer.split() == (gold or "").split() if compared else None,
    )


def _gold(spec: CotBuild, seed: Seed) -> str:
    value = seed[spec.gold_field]
    return gold_answer(value) if spec.verify == "numeric" else _as_text(value)


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
