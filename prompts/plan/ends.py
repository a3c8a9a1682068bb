"""How rows end: as a record, or as a reject that keeps everything that was paid for."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Literal

from prompts.parse import split_thinking
from prompts.plan.request import TeacherFacts
from prompts.plan.row import Row
from prompts.plan.samples import Draft
from prompts.plan.seeds import seeded
from prompts.record import (
    Call,
    Judgement,
    Kind,
    Message,
    Record,
    Rejected,
    Usage,
    calls_text,
    written,
)
from prompts.spec import AskedBuild
from prompts.split import split_of
from prompts.tools import tools_text


@dataclass(frozen=True)
class Ending:
    """A row that has ended one way or the other: all that both ends tell."""

    spec: AskedBuild
    row: Row
    teacher: TeacherFacts
    calls: Sequence[Call] = ()
    judgements: tuple[Judgement, ...] = field(default=())

    def accepted(self, draft: Draft) -> Record:
        """The record of a draft."""
        row, reply, completion = self.row, draft.sample.reply, _completion(draft)
        return Record(
            **self._told(draft),
            completion=completion,
            reasoning=reply.rationale,
            split=split_of(row.key, self.spec.split),
            content_hash=content_hash(row.prompt, completion),
        )

    def rejected(
        self,
        reason: str,
        detail: str = "",
        draft: Draft | None = None,
        end: Literal["rejected", "not_needed"] = "rejected",
    ) -> Rejected:
        """The reject of a row; the raw completions are as the teacher wrote them. `draft`: what it
        has of an answer, which a person may still accept."""
        said = _completion(draft) if draft else ()
        return Rejected(
            **self._told(draft),
            end=end,
            reason=str(reason),
            detail=detail,
            raw=tuple(text for call in self.calls for text in _written(call)),
            completion=said if any(written(turn) for turn in said) else (),
            rationale=draft.sample.reply.rationale if draft else None,
            reasoning=_thinking(self.calls),
        )

    def _told(self, draft: Draft | None) -> dict[str, Any]:
        """The fields that records and rejects share."""
        row, call = self.row, self.calls[-1] if self.calls else None
        told: dict[str, Any] = {
            "id": row.seed["id"],
            "kind": Kind(self.spec.kind),
            "prompt": row.prompt,
            "tools": tools_text(row.tools),
            "demo_ids": row.demo_ids,
            "judgements": self.judgements,
            "teacher": self.teacher.name,
            "teacher_revision": self.teacher.revision,
            "usage": usage(self.calls),
            "seed": as_json(row.seed),
            "finish_reason": call.finish_reason if call else None,
        }
        return told if draft is None else told | _told_of(self.spec, draft)


def _told_of(spec: AskedBuild, draft: Draft) -> dict[str, Any]:
    call, reply = draft.sample.call, draft.sample.reply
    sampling = seeded(spec.sampling, call.row, call.step, call.sample)
    return {
        "answer": reply.answer,
        "gold": reply.gold,
        "sampling": as_json(sampling.model_dump(mode="json", exclude_none=True)),
        "finish_reason": call.finish_reason,
        "confidence": draft.confidence,
        "hinted": True if draft.hinted else None,
        "flags": draft.sample.flags,
    }


def _completion(draft: Draft) -> tuple[Message, ...]:
    reply = draft.sample.reply
    calls = reply.tool_calls or None
    return (Message(role="assistant", content=reply.text, tool_calls=calls),)


def content_hash(prompt: Sequence[Message], completion: Sequence[Message]) -> str:
    """SHA-256 of prompt and completion, hex: rows with the same one are duplicates."""
    turns = [[_content(turn) for turn in part] for part in (prompt, completion)]
    return sha256(as_json(turns).encode()).hexdigest()


def _content(turn: Message) -> list[str]:
    """What a turn says; turns without calls have the hash that they always had."""
    said = [turn.role, turn.content]
    return [*said, calls_text(turn.tool_calls)] if turn.tool_calls else said


def _written(call: Call) -> list[str]:
    """What a call wrote: its words, the functions that it calls."""
    return written(Message(role="assistant", content=call.text, tool_calls=call.tool_calls))


def usage(calls: Sequence[Call]) -> Usage:
    """Tokens of all calls together."""
    return Usage(
        prompt_tokens=sum(call.prompt_tokens for call in calls),
        completion_tokens=sum(call.completion_tokens for call in calls),
    )


def as_json(value: Mapping[str, Any] | Sequence[Any]) -> str:
    """Compact JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _thinking(calls: Sequence[Call]) -> str | None:
    thoughts = (split_thinking(call.text, call.reasoning).thinking for call in calls)
    return "\n".join(thought for thought in thoughts if thought) or None
