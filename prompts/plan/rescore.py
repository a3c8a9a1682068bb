"""The plan of a rescore build: one request a row, which scores the completion that it has.

The row's record stays as it was, but for the tokens that it cost; its signal is what is new.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from prompts.plan.ends import as_json, usage
from prompts.plan.request import (
    REFUSED,
    SCORES,
    EncodeError,
    NotNeeded,
    Request,
    TeacherFacts,
    Tokens,
)
from prompts.record import Call, Reason, Record, Rejected, Seed, Usage, as_rejected
from prompts.spec import RescoreBuild, Sampling

ROW = "row"
"""The seed's field that holds the record."""
_UNSAMPLED = Sampling(temperature=0.0, max_tokens=1)
"""A server writes one token at least; nobody looks at it."""


@dataclass(frozen=True)
class RescorePlan:
    """How the rows of one rescore build are asked. The teacher's facts must have `encode`."""

    spec: RescoreBuild
    teacher: TeacherFacts

    def next(self, seed: Seed, calls: Sequence[Call]) -> tuple[Request, ...] | Record | Rejected:
        """Like `Plan.next`; `seed` is one of `scored_seed`."""
        record = scored_record(seed)
        call = next((call for call in calls if call.step == SCORES), None)
        if call is None:
            return self._ask(seed, record)
        if call.finish_reason == REFUSED:
            detail = call.error or "no reason was given"
            return self._rejected(seed, record, Reason.TEACHER_ERROR, detail, calls)
        return record.model_copy(update={"usage": _together(record, calls)})

    def not_needed(self, seed: Seed, why: NotNeeded, calls: Sequence[Call] = ()) -> Rejected:
        """Like `Plan.not_needed`."""
        ended = self._rejected(seed, scored_record(seed), Reason.TEACHER_ERROR, "", calls)
        return ended.model_copy(update={"end": "not_needed", "reason": why})

    def kept(self, seed: Seed, calls: Sequence[Call]) -> Call | None:
        """Like `Plan.kept`."""
        return next((call for call in calls if call.step == SCORES and call.signal), None)

    def places(self, seeds: Sequence[Seed]) -> list[int]:
        """Like `Plan.places`."""
        return list(range(len(seeds)))

    def prepare(self, seeds: Sequence[Seed]) -> None:
        """Like `Plan.prepare`: nothing is needed beforehand."""

    @property
    def slow(self) -> bool:
        """Like `Plan.slow`."""
        return False

    def _ask(self, seed: Seed, record: Record) -> tuple[Request, ...] | Rejected:
        assert self.teacher.encode is not None
        try:
            encoded = self.teacher.encode(record)
        except EncodeError as error:
            return self._rejected(seed, record, Reason.NOT_SCORABLE, str(error))
        context, length = self.teacher.context_tokens, len(encoded.ids)
        if context is not None and length + _UNSAMPLED.max_tokens > context:
            detail = f"{length} tokens and one more exceed the context of {context}"
            return self._rejected(seed, record, Reason.PROMPT_TOO_LONG, detail)
        request = Request(
            row=record.id,
            step=SCORES,
            sample=0,
            messages=(*record.prompt, *record.completion),
            sampling=_UNSAMPLED,
            teacher=self.teacher.name,
            signal_top_k=self.spec.signal.top_k,
            signal_draws=self.spec.signal.sampled,
            tokens=Tokens(encoded.ids, encoded.prompt_tokens),
        )
        return (request,)

    def _rejected(
        self,
        seed: Seed,
        record: Record,
        reason: Reason,
        detail: str,
        calls: Sequence[Call] = (),
    ) -> Rejected:
        row = as_rejected(record, reason, detail)
        return row.model_copy(update={"usage": _together(record, calls), "seed": as_json(seed)})


def scored_seed(record: Record) -> Seed:
    """The seed of a rescore build for a row of a dataset."""
    return {"id": record.id, ROW: record.model_dump(mode="json")}


def scored_record(seed: Seed) -> Record:
    """The row that a seed of a rescore build holds. Raises ValueError, which says what is wrong."""
    row: Any = seed.get(ROW)
    if not isinstance(row, dict):
        raise ValueError("it is no row of a dataset; a rescore build takes a dataset, no file")
    try:
        return Record.model_validate(row)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"its row can't be read ({place}: {first['msg']})") from None


def _together(record: Record, calls: Sequence[Call]) -> Usage:
    """What the row cost when it was written, and what scoring it cost."""
    scored = usage(calls)
    return Usage(
        prompt_tokens=record.usage.prompt_tokens + scored.prompt_tokens,
        completion_tokens=record.usage.completion_tokens + scored.completion_tokens,
    )
