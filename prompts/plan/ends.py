"""How rows end: as a record, or as a reject that keeps everything that was paid for."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Literal

from prompts.checks import Reply
from prompts.parse import split_thinking
from prompts.plan.request import TeacherFacts
from prompts.plan.row import Row
from prompts.plan.samples import Draft
from prompts.record import Call, Judgement, Kind, Message, Record, Rejected, Usage
from prompts.spec import Build, Sampling
from prompts.split import split_of
from prompts.tools import calls_text, tools_text


@dataclass(frozen=True)
class Ending:
    """A row that has ended one way or the other: all that both ends tell."""

    kind: Kind
    row: Row
    teacher: TeacherFacts
    calls: Sequence[Call] = ()
    judgements: tuple[Judgement, ...] = field(default=())

    def accepted(self, spec: Build, draft: Draft, sampling: Sampling) -> Record:
        """The record of a draft."""
        row, call, reply = self.row, draft.sample.call, draft.sample.reply
        said = Message(role="assistant", content=reply.text, tool_calls=reply.tool_calls or None)
        completion = (said,)
        return Record(
            id=row.seed["id"],
            kind=self.kind,
            prompt=row.prompt,
            completion=completion,
            tools=tools_text(row.tools),
            answer=reply.answer,
            gold=reply.gold,
            reasoning=reply.rationale,
            demo_ids=row.demo_ids,
            split=split_of(row.key, spec.split),
            teacher=self.teacher.name,
            teacher_revision=self.teacher.revision,
            sampling=as_json(sampling.model_dump(mode="json", exclude_none=True)),
            finish_reason=call.finish_reason,
            usage=usage(self.calls),
            confidence=draft.confidence,
            hinted=True if draft.hinted else None,
            flags=draft.sample.flags,
            judgements=self.judgements,
            content_hash=content_hash(row.prompt, completion),
            seed=as_json(row.seed),
        )

    def rejected(
        self,
        reason: str,
        detail: str = "",
        reply: Reply | None = None,
        end: Literal["rejected", "not_needed"] = "rejected",
    ) -> Rejected:
        """The reject of a row; the raw completions are as the teacher wrote them."""
        return Rejected(
            id=self.row.seed["id"],
            kind=self.kind,
            end=end,
            reason=str(reason),
            detail=detail,
            prompt=self.row.prompt,
            raw=tuple(text for call in self.calls for text in _written(call)),
            reasoning=_thinking(self.calls),
            finish_reason=self.calls[-1].finish_reason if self.calls else None,
            answer=reply.answer if reply else None,
            gold=reply.gold if reply else None,
            demo_ids=self.row.demo_ids,
            judgements=self.judgements,
            teacher=self.teacher.name,
            usage=usage(self.calls),
            seed=as_json(self.row.seed),
        )


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
    calls = [calls_text(call.tool_calls)] if call.tool_calls else []
    return [*([call.text] if call.text else []), *calls]


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
