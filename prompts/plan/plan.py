"""What to ask next for a row, or how it ended: pure in the seed and its ledger entries."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Literal

from prompts.checks import Reply, first_fault
from prompts.demonstrations import Pool, choose, make_pool
from prompts.plan.request import REFUSED, NotNeeded, Request, TeacherFacts
from prompts.record import Call, Kind, Message, Reason, Record, Rejected, Seed, Usage
from prompts.reply import read_reply
from prompts.spec import CotBuild, IclBuild, InstructionBuild, Sampling
from prompts.split import input_key, split_of
from prompts.template import Template, compile_template


@dataclass(frozen=True)
class Plan:
    """How the rows of one build are asked and judged. Made by `make_plan`."""

    spec: IclBuild | CotBuild | InstructionBuild
    teacher: TeacherFacts
    template: Template
    system: Template | None
    pool: Pool | None

    def next(self, seed: Seed, calls: Sequence[Call]) -> tuple[Request, ...] | Record | Rejected:
        """The requests of a row that may be asked now, side by side, or how the row ended.

        A tuple is never empty and holds no request that `calls` answers. `calls` are the row's
        ledger entries, in any order; the same ones give the same result in any process. A `Record`
        may still fall to `duplicate` when the dataset is assembled.
        """
        row = self._row(seed)
        call = next((call for call in calls if (call.step, call.sample) == (0, 0)), None)
        if call is None:
            return self._ask(row)
        return self._judge(row, call)

    def not_needed(self, seed: Seed, why: NotNeeded, calls: Sequence[Call] = ()) -> Rejected:
        """The end of a row that is not asked any more; keeps what was paid for."""
        return self._rejected(self._row(seed), why, end="not_needed", calls=calls)

    def _row(self, seed: Seed) -> "_Row":
        key = input_key(self.template, seed)
        demos: tuple[Seed, ...] = ()
        if isinstance(self.spec, IclBuild) and self.pool is not None:
            demos = choose(self.pool, self.spec, seed, key)
        user = Message(role="user", content=self.template.render(seed, demos))
        if self.system is None:
            return _Row(seed, key, demos, (user,))
        system = Message(role="system", content=self.system.render(seed))
        return _Row(seed, key, demos, (system, user))

    def _ask(self, row: "_Row") -> tuple[Request, ...] | Rejected:
        wanted = self.spec.demonstrations if isinstance(self.spec, IclBuild) else 0
        if len(row.demos) < wanted:
            detail = f"the pool holds {len(row.demos)} for this row, the spec asks for {wanted}"
            return self._rejected(row, Reason.TOO_FEW_DEMONSTRATIONS, detail)
        too_long = self._too_long(row.prompt)
        if too_long is not None:
            return self._rejected(row, Reason.PROMPT_TOO_LONG, too_long)
        return (Request(row.seed["id"], 0, 0, row.prompt, self._sampling(row), self.teacher.name),)

    def _too_long(self, prompt: tuple[Message, ...]) -> str | None:
        context, count = self.teacher.context_tokens, self.teacher.count_tokens
        if context is None or count is None:
            return None
        tokens, limit = count(prompt), self.spec.sampling.max_tokens
        if tokens + limit <= context:
            return None
        return f"{tokens} prompt tokens and max_tokens {limit} exceed the context of {context}"

    def _judge(self, row: "_Row", call: Call) -> Record | Rejected:
        if call.finish_reason == REFUSED:
            words = call.error or "the server gave no reason"
            return self._rejected(row, Reason.TEACHER_ERROR, words, calls=[call])
        reply = read_reply(self.spec, row.seed, call)
        fault = first_fault(Kind(self.spec.kind), reply)
        if fault is None:
            return self._record(row, call, reply)
        return self._rejected(row, *fault, calls=[call], reply=reply)

    def _record(self, row: "_Row", call: Call, reply: Reply) -> Record:
        completion = (Message(role="assistant", content=call.text),)
        return Record(
            id=row.seed["id"],
            kind=Kind(self.spec.kind),
            prompt=row.prompt,
            completion=completion,
            answer=reply.answer,
            gold=reply.gold,
            reasoning=reply.rationale,
            demo_ids=row.demo_ids,
            split=split_of(row.key, self.spec.split),
            teacher=self.teacher.name,
            teacher_revision=self.teacher.revision,
            sampling=_json(self._sampling(row).model_dump(exclude_none=True)),
            finish_reason=call.finish_reason,
            usage=_usage([call]),
            content_hash=content_hash(row.prompt, completion),
            seed=_json(row.seed),
        )

    def _rejected(
        self,
        row: "_Row",
        reason: str,
        detail: str = "",
        end: Literal["rejected", "not_needed"] = "rejected",
        calls: Sequence[Call] = (),
        reply: Reply | None = None,
    ) -> Rejected:
        return Rejected(
            id=row.seed["id"],
            kind=Kind(self.spec.kind),
            end=end,
            reason=str(reason),
            detail=detail,
            prompt=row.prompt,
            raw=tuple(call.text for call in calls if call.text),
            reasoning="\n".join(call.reasoning for call in calls if call.reasoning) or None,
            finish_reason=calls[-1].finish_reason if calls else None,
            answer=reply.answer if reply else None,
            gold=reply.gold if reply else None,
            demo_ids=row.demo_ids,
            teacher=self.teacher.name,
            usage=_usage(calls),
            seed=_json(row.seed),
        )

    def _sampling(self, row: "_Row") -> Sampling:
        given = self.spec.sampling
        if given.seed is None:
            return given
        return given.model_copy(update={"seed": sampling_seed(given.seed, row.seed["id"])})


@dataclass(frozen=True)
class _Row:
    seed: Seed
    key: str
    demos: tuple[Seed, ...]
    prompt: tuple[Message, ...]

    @property
    def demo_ids(self) -> tuple[str, ...]:
        return tuple(demo["id"] for demo in self.demos)


def make_plan(
    spec: IclBuild | CotBuild | InstructionBuild,
    pool: Sequence[Seed] | None,
    teacher: TeacherFacts,
) -> Plan:
    """The plan of a build. `pool`: labelled seeds, for ICL; see `prompts.intake.read_pool`.

    Raises ValueError if an ICL build with demonstrations gets no pool, another kind gets one, or
    the teacher isn't the one that the spec names.
    """
    if teacher.name != spec.teacher:
        raise ValueError(f"the spec names the teacher {spec.teacher!r}, given is {teacher.name!r}")
    return Plan(
        spec=spec,
        teacher=teacher,
        template=compile_template(spec.template, demonstrations=isinstance(spec, IclBuild)),
        system=None if spec.system is None else compile_template(spec.system),
        pool=_pool(spec, pool),
    )


def row_number(row: str) -> int:
    """A number in 0..2^31-1 that belongs to a row's id, for the row's own sampling seed."""
    return int.from_bytes(sha256(row.encode()).digest()[:4], "big") >> 1


def sampling_seed(base: int, row: str, step: int = 0, sample: int = 0) -> int:
    """The seed of one request, 0..2^31-1: every sample of every step of every row has its own."""
    return (base + row_number(row) + step * 1_000_003 + sample * 7919) % 2**31


def content_hash(prompt: Sequence[Message], completion: Sequence[Message]) -> str:
    """SHA-256 of prompt and completion, hex: rows with the same one are duplicates."""
    turns = [[[turn.role, turn.content] for turn in part] for part in (prompt, completion)]
    return sha256(_json(turns).encode()).hexdigest()


def _pool(spec: IclBuild | CotBuild | InstructionBuild, pool: Sequence[Seed] | None) -> Pool | None:
    if not isinstance(spec, IclBuild):
        if pool is not None:
            raise ValueError(f"a build of kind {spec.kind!r} takes no pool")
        return None
    if pool is None and spec.demonstrations:
        raise ValueError("an ICL build with demonstrations needs its pool")
    return make_pool(spec, pool or ())


def _usage(calls: Sequence[Call]) -> Usage:
    return Usage(
        prompt_tokens=sum(call.prompt_tokens for call in calls),
        completion_tokens=sum(call.completion_tokens for call in calls),
    )


def _json(value: Mapping[str, Any] | Sequence[Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
