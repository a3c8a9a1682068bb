"""Magpie [2406.08464]: the teacher writes a user's turn, as its chat template leaves room for one.

The steps of one row: the text of the template up to where a user's words begin is continued until
the turn ends; if that is an instruction and news beside the pool of the rounds before, it is
answered like any other.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from prompts.instructions.pool import RoundPools
from prompts.instructions.steps import (
    WRITING,
    as_task,
    own_calls,
    refused,
    reject,
    unwritten,
    with_usage,
    writing_calls,
)
from prompts.overlap import words_of
from prompts.plan import NotNeeded, Opening, Plan, Request, Tokens
from prompts.plan.seeds import seeded
from prompts.record import Call, Message, Reason, Record, Rejected, Seed
from prompts.spec.methods import Magpie


@dataclass(frozen=True)
class MagpiePlan:
    """The plan of a magpie build, around the plan that answers."""

    plan: Plan
    method: Magpie
    pools: RoundPools
    opening: Opening

    def next(self, seed: Seed, calls: Sequence[Call]) -> tuple[Request, ...] | Record | Rejected:
        """Like `Plan.next`; `seed` is one of `slots`."""
        written = writing_calls(calls).get(WRITING)
        if written is None:
            return self._write(seed)
        instruction = written.text.strip()
        fault = self._fault(instruction, written)
        if fault is not None:
            return self._reject(seed, calls, *fault)
        found = self.pools(seed["round"]).likest(instruction)
        if found is not None:
            detail = f"ROUGE-L {found.score:.3f} with task {found.row!r}"
            return self._reject(seed, calls, Reason.NOT_NOVEL, detail, found.row)
        step = self.plan.next(as_task(seed, instruction), own_calls(calls))
        return step if isinstance(step, tuple) else with_usage(step, calls)

    def not_needed(self, seed: Seed, why: NotNeeded, calls: Sequence[Call] = ()) -> Rejected:
        """Like `Plan.not_needed`."""
        return unwritten(self.plan.not_needed(as_task(seed, ""), why, calls), seed)

    def kept(self, seed: Seed, calls: Sequence[Call]) -> Call | None:
        """Like `Plan.kept`."""
        written = writing_calls(calls).get(WRITING)
        if written is None:
            return None
        return self.plan.kept(as_task(seed, written.text.strip()), own_calls(calls))

    def places(self, seeds: Sequence[Seed]) -> list[int]:
        """Like `Plan.places`."""
        return list(range(len(seeds)))

    def prepare(self, seeds: Sequence[Seed]) -> None:
        """Read the pools of these rows' rounds."""
        for turn in sorted({seed["round"] for seed in seeds}):
            self.pools(turn)

    @property
    def slow(self) -> bool:
        """Like `Plan.slow`."""
        return self.plan.slow

    def _write(self, seed: Seed) -> tuple[Request, ...]:
        opening = self.opening
        request = Request(
            row=seed["id"],
            step=WRITING,
            sample=0,
            messages=(Message(role="system", content=opening.text),),
            sampling=seeded(self.method.sampling, seed["id"], WRITING),
            teacher=self.plan.teacher.name,
            tokens=Tokens(opening.ids, stop_ids=opening.stop_ids, stop=opening.stop),
        )
        return (request,)

    def _fault(self, instruction: str, call: Call) -> tuple[Reason, str] | None:
        if refused(call):
            return Reason.TEACHER_ERROR, call.error or "the server gave no reason"
        words = len(words_of(instruction))
        if call.finish_reason != "stop":
            detail = f"it was cut off (finish_reason {call.finish_reason!r})"
            return Reason.NO_INSTRUCTION, detail
        if not 0 < words <= self.method.max_words:
            return Reason.NO_INSTRUCTION, f"an instruction of {words} words: {instruction[:200]!r}"
        return None

    def _reject(
        self,
        seed: Seed,
        calls: Sequence[Call],
        reason: Reason,
        detail: str,
        like: str | None = None,
    ) -> Rejected:
        row = reject(self.plan, as_task(seed, ""), calls, reason, detail, like)
        return unwritten(row, seed)
