"""The judges' step: what is asked about a draft, and what the answers mean."""

from collections.abc import Mapping
from dataclasses import dataclass

from prompts.checks import Reply
from prompts.checks.judge import REPLY_SCHEMA, judge_prompt, judged_fault, read_judgement
from prompts.checks.spec import JudgeCheck
from prompts.parse import split_thinking
from prompts.plan.request import REFUSED, Request
from prompts.plan.row import Row
from prompts.plan.seeds import seeded
from prompts.record import Call, Judgement, Reason, calls_text
from prompts.spec import Sampling

JUDGES = 2
"""The step; each judge is a sample of it."""


@dataclass(frozen=True)
class Verdict:
    """What all judges of a row said, and the first objection."""

    judgements: tuple[Judgement, ...]
    fault: tuple[Reason, str] | None


def ask_judge(
    judge: JudgeCheck, place: int, row: Row, reply: Reply, base: int | None, author: str
) -> Request:
    """What one judge is asked of the reply that `author` gave. `base`: the spec's sampling seed.

    Raises TemplateError.
    """
    sampling = Sampling(temperature=judge.temperature, max_tokens=judge.max_tokens, seed=base)
    said = _said(reply)
    return Request(
        row=row.seed["id"],
        step=JUDGES,
        sample=place,
        messages=judge_prompt(judge, row.seed, row.prompt, said, reply.rationale, reply.gold),
        sampling=seeded(sampling, row.seed["id"], JUDGES, place),
        teacher=judge.teacher or author,
        schema=REPLY_SCHEMA if judge.structured else None,
    )


def _said(reply: Reply) -> str:
    calls = [calls_text(reply.tool_calls)] if reply.tool_calls else []
    return "\n".join([*([reply.text] if reply.text else []), *calls])


def read_verdict(
    judges: tuple[JudgeCheck, ...], known: Mapping[tuple[int, int], Call], author: str
) -> Verdict:
    """The judgements, in the order of the judges; all of them have answered."""
    judgements: list[Judgement] = []
    faults: list[tuple[Reason, str]] = []
    for place, judge in enumerate(judges):
        call = known[JUDGES, place]
        if call.finish_reason == REFUSED:
            faults.append((Reason.TEACHER_ERROR, f"judge: {call.error or 'no reason was given'}"))
            continue
        name = call.teacher or judge.teacher or author
        judgement = read_judgement(judge, name, split_thinking(call.text, call.reasoning).text)
        judgements.append(judgement)
        fault = judged_fault(judge, judgement)
        if fault is not None:
            faults.append(fault)
    return Verdict(tuple(judgements), faults[0] if faults else None)
