"""What several tests of this room make: specs, plans, the teacher's answers."""

import json
from collections.abc import Callable
from typing import Any

from prompts.plan import Plan, Request, TeacherFacts, make_plan
from prompts.record import Call, Record, Rejected, Seed
from prompts.spec import CotBuild, IclBuild, InstructionBuild, build_spec

LETTERS = "ab1 \n\t\"'\\{}[]:,é日😀\u2028\x00"
"""What texts of property tests are made of: all that JSON, UTF-8 and templates trip over."""

TEACHER = TeacherFacts(name="teacher", revision="r1")


def spec_of(kind: str, **fields: Any) -> Any:
    """A spec of one kind, as a recipe would give it."""
    return build_spec.validate_python({"kind": kind, "teacher": "teacher", "seeds": "s", **fields})


def plan_of(spec: IclBuild | CotBuild | InstructionBuild, pool: list[Seed] | None = None) -> Plan:
    """A plan against a teacher of unknown context."""
    return make_plan(spec, pool, TEACHER)


def requests_of(plan: Plan, seed: Seed, calls: list[Call] | None = None) -> tuple[Request, ...]:
    """What a row asks next; it must not have ended."""
    step = plan.next(seed, calls or [])
    assert isinstance(step, tuple)
    return step


def said(seed: Seed, text: str, finish_reason: str = "stop", **fields: Any) -> list[Call]:
    """The ledger of a row whose only request was answered so."""
    return [Call(row=seed["id"], text=text, finish_reason=finish_reason, **fields)]


def ask(
    plan: Plan, seed: Seed, teacher: Callable[[Request], str | Call]
) -> tuple[list[Request], Record | Rejected]:
    """Everything that a row asks until it ends, answered by `teacher`, and how it ended."""
    asked: list[Request] = []
    calls: list[Call] = []
    while isinstance(step := plan.next(seed, calls), tuple):
        asked += step
        calls += [answered(request, teacher(request)) for request in step]
    return asked, step


def answered(request: Request, answer: str | Call) -> Call:
    """The ledger's entry for a request."""
    if isinstance(answer, Call):
        key = {"row": request.row, "step": request.step, "sample": request.sample}
        return answer.model_copy(update=key)
    return Call(
        row=request.row,
        step=request.step,
        sample=request.sample,
        text=answer,
        finish_reason="stop",
        completion_tokens=len(answer.split()),
    )


def lines_of(*rows: Any) -> list[bytes]:
    """JSON Lines."""
    return [json.dumps(row).encode() + b"\n" for row in rows]


def questions(count: int) -> list[Seed]:
    """Chain-of-thought seeds with gold answers."""
    return [{"id": f"q{i}", "question": f"What is {i} + 1?", "answer": i + 1} for i in range(count)]


def labelled(count: int) -> list[Seed]:
    """In-context seeds in two groups."""
    return [
        {"id": f"d{i}", "input": f"in {i}", "output": f"out {i}", "task": f"t{i % 2}"}
        for i in range(count)
    ]


def ended(count: int) -> list[Record | Rejected]:
    """Finished rows: in turn accepted, rejected and not needed."""
    plan = plan_of(spec_of("cot"))
    rows: list[Record | Rejected] = []
    for number, seed in enumerate(questions(count)):
        if number % 4 == 3:
            rows.append(plan.not_needed(seed, "target"))
            continue
        answer = -1 if number % 4 == 2 else seed["answer"]
        usage = {"prompt_tokens": 3, "completion_tokens": 2}
        row = plan.next(seed, said(seed, f"One more. The answer is {answer}.", **usage))
        assert isinstance(row, Record | Rejected)
        rows.append(row)
    return rows
