"""How each kind reads a completion."""

from dataclasses import dataclass
from typing import Any, assert_never

from prompts.checks import Reply
from prompts.demonstrations import LABEL
from prompts.parse import Spoken, parse_answer, split_thinking
from prompts.record import Call, Seed
from prompts.spec import CotBuild, IclBuild, InstructionBuild
from prompts.tools import calls_fault, tools_of
from prompts.verify import Verifier, VerifyError, as_text, gold_text


def read_reply(
    spec: IclBuild | CotBuild | InstructionBuild, verifier: Verifier, seed: Seed, call: Call
) -> Reply:
    """What the checks look at: text, answer, rationale, gold answer and whether they agree."""
    spoken = split_thinking(call.text, call.reasoning)
    match spec:
        case CotBuild():
            return _chain_of_thought(spec, verifier, seed, call, spoken)
        case IclBuild():
            return _in_context(spec, verifier, seed, call, spoken)
        case InstructionBuild():
            return Reply(
                text=spoken.text,
                finish_reason=call.finish_reason,
                rationale=spoken.thinking,
                completion_tokens=call.completion_tokens,
                tool_calls=call.tool_calls or (),
                uncallable=calls_fault(call.tool_calls or (), tools_of(seed, spec.tools)),
            )
    assert_never(spec)


def _chain_of_thought(
    spec: CotBuild, verifier: Verifier, seed: Seed, call: Call, spoken: Spoken
) -> Reply:
    parsed = parse_answer(spoken.text, spec.answer_pattern)
    compared = _compared(spec, verifier, parsed.answer, seed.get(spec.gold_field))
    return Reply(
        text=spoken.text,
        finish_reason=call.finish_reason,
        answer=parsed.answer,
        rationale="\n".join(part for part in (spoken.thinking, parsed.rationale) if part) or None,
        gold=compared.gold,
        right=compared.right,
        problem=compared.problem,
        completion_tokens=call.completion_tokens,
    )


def _in_context(
    spec: IclBuild, verifier: Verifier, seed: Seed, call: Call, spoken: Spoken
) -> Reply:
    answer = spoken.text.strip()
    compared = _compared(spec, verifier, answer, seed.get(LABEL))
    return Reply(
        text=spoken.text,
        finish_reason=call.finish_reason,
        answer=answer or None,
        rationale=spoken.thinking,
        gold=compared.gold,
        right=compared.right,
        problem=compared.problem,
        completion_tokens=call.completion_tokens,
    )


@dataclass(frozen=True)
class _Compared:
    gold: str | None = None
    right: bool | None = None
    problem: str | None = None


def _compared(
    spec: IclBuild | CotBuild, verifier: Verifier, answer: str | None, value: Any
) -> _Compared:
    if value is None:
        return _Compared()
    if verifier.right is None:
        return _Compared(as_text(value))
    gold = gold_text(spec.verify, value)
    if answer is None:
        return _Compared(gold)
    try:
        return _Compared(gold, verifier.right(answer, gold))
    except VerifyError as error:
        return _Compared(gold, problem=str(error))
