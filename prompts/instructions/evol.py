"""Evol-instruct [2304.12244]: an instruction is rewritten several times, then answered.

The steps of one row, each a function of the answers before it: rewrite, compare, rewrite, compare,
..., answer. A rewriting that is eliminated leaves the instruction as it was for the next.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from prompts.instructions.steps import (
    WRITING,
    Calls,
    ask,
    own_calls,
    refused,
    reject,
    with_usage,
    writing_calls,
)
from prompts.overlap import words_of
from prompts.plan import NotNeeded, Plan, Request
from prompts.record import Call, Reason, Record, Rejected, Seed, as_rejected
from prompts.spec.methods import EvolInstruct, Operator
from prompts.spec.writing import told
from prompts.split import input_key, split_of
from prompts.template import TemplateError

_COPIED = re.compile(
    r"\b(new|given|rewritten|original) (instruction|prompt)s?\b|\[[^\]]*instruction[^\]]*\]", re.I
)
_SORRY_WORDS = 80
"""An answer under so many words that is sorry says that the instruction can't be followed."""
_COMPARE_TOKENS = 8


@dataclass(frozen=True)
class Evolved:
    """An instruction on its way: what it is now and what became of each rewriting."""

    instruction: str
    survived: int
    faults: tuple[str, ...]
    waiting: tuple[Request, ...] = ()
    """What must be answered before more can be said."""


@dataclass(frozen=True)
class EvolPlan:
    """The plan of an evol-instruct build, around the plan that answers."""

    plan: Plan
    method: EvolInstruct

    def next(self, seed: Seed, calls: Sequence[Call]) -> tuple[Request, ...] | Record | Rejected:
        """Like `Plan.next`."""
        evolved = self._evolve(seed, writing_calls(calls))
        if evolved.waiting:
            return evolved.waiting
        if not evolved.survived:
            detail = "; ".join(evolved.faults)
            return reject(self.plan, seed, calls, Reason.NOT_EVOLVED, detail)
        step = self.plan.next(_rewritten(seed, evolved.instruction), own_calls(calls))
        if isinstance(step, tuple):
            return step
        return self._ended(seed, step, calls)

    def not_needed(self, seed: Seed, why: NotNeeded, calls: Sequence[Call] = ()) -> Rejected:
        """Like `Plan.not_needed`."""
        return self.plan.not_needed(seed, why, calls)

    def kept(self, seed: Seed, calls: Sequence[Call]) -> Call | None:
        """Like `Plan.kept`."""
        evolved = self._evolve(seed, writing_calls(calls))
        return self.plan.kept(_rewritten(seed, evolved.instruction), own_calls(calls))

    def places(self, seeds: Sequence[Seed]) -> list[int]:
        """Like `Plan.places`."""
        return self.plan.places(seeds)

    def prepare(self, seeds: Sequence[Seed]) -> None:
        """Like `Plan.prepare`."""
        self.plan.prepare(seeds)

    @property
    def slow(self) -> bool:
        """Like `Plan.slow`."""
        return self.plan.slow

    def _evolve(self, seed: Seed, known: Calls) -> Evolved:
        instruction, survived = str(seed["instruction"]), 0
        faults: list[str] = []
        for turn in range(self.method.rounds):
            step = WRITING + 2 * turn
            try:
                if step not in known:
                    waiting = self._ask(seed, step, instruction)
                    return Evolved(instruction, survived, tuple(faults), waiting)
                candidate = _unquoted(known[step].text)
                fault = _fault(instruction, candidate, known[step])
                if fault is None and self.method.compare:
                    if step + 1 not in known:
                        waiting = self._compare(seed, step + 1, instruction, candidate)
                        return Evolved(instruction, survived, tuple(faults), waiting)
                    fault = _no_gain(known[step + 1])
            except TemplateError as error:  # The recipe's prompt went with our samples, not here.
                fault = str(error)
            if fault is None:
                instruction, survived = candidate, survived + 1
            else:
                faults.append(f"rewriting {turn + 1} ({self._operator(seed, step)}): {fault}")
        return Evolved(instruction, survived, tuple(faults))

    def _ask(self, seed: Seed, step: int, instruction: str) -> tuple[Request, ...]:
        asked = self.method.prompts
        how = getattr(asked, self._operator(seed, step))
        text = told(asked.rewrite, how=how, instruction=_whole(seed, instruction))
        return ask(self.plan, seed, step, text, self.method.sampling)

    def _compare(self, seed: Seed, step: int, first: str, second: str) -> tuple[Request, ...]:
        sampling = self.method.sampling.model_copy(
            update={"temperature": 0.0, "max_tokens": _COMPARE_TOKENS}
        )
        text = told(self.method.prompts.compare, first=_whole(seed, first), second=second)
        return ask(self.plan, seed, step, text, sampling)

    def _operator(self, seed: Seed, step: int) -> Operator:
        digest = sha256(f"evol\n{seed['id']}\n{step}".encode()).digest()
        operators = self.method.operators
        return operators[int.from_bytes(digest[:8], "big") % len(operators)]

    def _ended(
        self, seed: Seed, ended: Record | Rejected, calls: Sequence[Call]
    ) -> Record | Rejected:
        """The answer's row under the original seed: its split too is the original's."""
        ended = with_usage(ended, calls).model_copy(
            update={"seed": json.dumps(seed, ensure_ascii=False, separators=(",", ":"))}
        )
        if isinstance(ended, Rejected):
            return ended
        answer = ended.completion[-1].content
        fault = _bad_answer(answer)
        if fault is not None:
            paid = self.plan.not_needed(seed, "cancelled", calls)
            kept = {"raw": paid.raw, "reasoning": paid.reasoning}
            return as_rejected(ended, Reason.NOT_EVOLVED, fault).model_copy(update=kept)
        key = input_key(self.plan.template, seed)
        return ended.model_copy(update={"split": split_of(key, self.plan.spec.split)})


def _rewritten(seed: Seed, instruction: str) -> Seed:
    """The seed as it is answered: what input it had is part of the rewritten instruction."""
    return {name: value for name, value in seed.items() if name != "input"} | {
        "instruction": instruction
    }


def _whole(seed: Seed, instruction: str) -> str:
    """An instruction with the seed's input, as long as it is the seed's own."""
    given = seed.get("input")
    return (
        f"{instruction}\n\n{given}" if given and instruction == seed["instruction"] else instruction
    )


def _unquoted(text: str) -> str:
    return text.strip().removeprefix("New instruction:").strip().strip('"').strip()


def _fault(before: str, after: str, call: Call) -> str | None:
    """Elimination by looking at the text alone."""
    if refused(call):
        return f"the teacher refused to write it: {call.error}"
    if call.finish_reason != "stop":
        return f"it was cut off (finish_reason {call.finish_reason!r})"
    words = words_of(after)
    if not words:
        return "it is empty"
    if words == words_of(before):
        return "it says the same as before"
    copied = _COPIED.search(after)
    if copied is not None and not _COPIED.search(before):
        return f"it copies words of the request: {copied.group()!r}"
    return None


def _no_gain(verdict: Call) -> str | None:
    first = words_of(verdict.text)[:1]
    return "the teacher finds that it asks for the same" if first == ("equal",) else None


def _bad_answer(answer: str) -> str | None:
    words = words_of(answer)
    if not words:
        return "the answer holds punctuation only: it can't be followed"
    if "sorry" in words and len(words) < _SORRY_WORDS:
        return "the answer is sorry: it can't be followed"
    return None
