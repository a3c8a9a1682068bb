"""The plan of a build: pure in a row's seed and its ledger entries.

A row goes through steps, each a set of requests that may be asked side by side: its samples
(step 0), where all are wrong a hint (step 1), of what is kept the judges (step 2). The next step
is a function of the answers so far, so a restart asks nothing twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from prompts.checks import first_fault
from prompts.checks.judge import judges_of
from prompts.checks.rows import findings
from prompts.checks.spec import JsonSchemaCheck
from prompts.demonstrations import Pool, arrange, choose, group_of
from prompts.demonstrations.pool import query_text, shown_texts
from prompts.overlap import EvaluationSet
from prompts.plan.ends import Ending
from prompts.plan.judging import JUDGES, ask_judge, read_verdict
from prompts.plan.request import REFUSED, NotNeeded, Request, TeacherFacts
from prompts.plan.row import Row, prefix_key, with_hint
from prompts.plan.samples import Draft, Fault, Sample, all_wrong, keep_one
from prompts.plan.seeds import seeded
from prompts.record import Call, Judgement, Kind, Message, Reason, Record, Rejected, Seed
from prompts.reply import read_reply
from prompts.spec import AskedBuild, CotBuild, InstructionBuild, Shots
from prompts.spec.asked import writer_of
from prompts.spec.selectors import SIMILAR
from prompts.split import input_key
from prompts.template import Template, TemplateError, compile_template
from prompts.tools import Tool, tools_of
from prompts.turns import earlier_turns
from prompts.verify import Verifier

SLOW_CHECKS = frozenset({"regex", "json_schema", "personal_data", "language"})
SAMPLES, HINT = 0, 1
"""The steps before the judges'."""

Step = tuple[Request, ...] | Record | Rejected


@dataclass(frozen=True)
class Plan:
    """How the rows of one build are asked and judged. Made by `make_plan`."""

    spec: AskedBuild
    teacher: TeacherFacts
    template: Template
    system: Template | None
    pool: Pool | None
    verifier: Verifier
    evaluation: tuple[EvaluationSet, ...] = ()

    def next(self, seed: Seed, calls: Sequence[Call]) -> Step:
        """The requests of a row that may be asked now, side by side, or how the row ended.

        A tuple is never empty and holds no request that `calls` answers. `calls` are the row's
        ledger entries, in any order; the same ones give the same result in any process. A `Record`
        may still fall to `duplicate` when the dataset is assembled.
        """
        row = self._row(seed)
        known = {(call.step, call.sample): call for call in calls}
        samples = self._samples(row, known)
        if not isinstance(samples, list):
            return samples
        draft = self._draft(row, known, samples)
        if isinstance(draft, tuple):
            return draft
        if isinstance(draft, Fault):
            return self._ending(row, known).rejected(draft.reason, draft.detail, draft.draft)
        return self._judge(row, known, draft)

    def not_needed(self, seed: Seed, why: NotNeeded, calls: Sequence[Call] = ()) -> Rejected:
        """The end of a row that is not asked any more; keeps what was paid for."""
        known = {(call.step, call.sample): call for call in calls}
        return self._ending(self._row(seed), known).rejected(why, end="not_needed")

    def kept(self, seed: Seed, calls: Sequence[Call]) -> Call | None:
        """The call whose completion a row's record holds; None if none is kept, or not yet."""
        row, known = self._row(seed), {(call.step, call.sample): call for call in calls}
        samples = self._samples(row, known)
        if not isinstance(samples, list):
            return None
        draft = self._draft(row, known, samples)
        return draft.sample.call if isinstance(draft, Draft) else None

    def places(self, seeds: Sequence[Seed]) -> list[int]:
        """In which order rows are best asked: those with the same demonstrations together."""
        if not isinstance(self.spec, Shots) or self.spec.fixed == "per_row":
            return list(range(len(seeds)))
        groups = [group_of(self.spec, seed) for seed in seeds]
        first = {group: place for place, group in reversed(list(enumerate(groups)))}
        return sorted(range(len(seeds)), key=lambda place: (first[groups[place]], place))

    def prepare(self, seeds: Sequence[Seed]) -> None:
        """Fetch at once what selecting demonstrations for these rows will need one by one."""
        if self.pool is not None and self.pool.embed is not None and seeds:
            self.pool.embed([query_text(self.template, seed) for seed in seeds])

    @property
    def slow(self) -> bool:
        """Whether `next` may take seconds: then it is not for an event loop's thread."""
        selects = isinstance(self.spec, Shots) and self.spec.selector.kind in SIMILAR
        checks = any(check.kind in SLOW_CHECKS for check in self.spec.checks)
        return self.verifier.slow or selects or checks

    def _row(self, seed: Seed) -> Row:
        key = input_key(self.template, seed)
        tools = self.spec.tools if isinstance(self.spec, InstructionBuild) else None
        chosen: tuple[Seed, ...] = ()
        few, prompt, fault = None, tuple[Message, ...](), None
        try:
            if isinstance(self.spec, Shots) and self.pool is not None and self.spec.demonstrations:
                chosen, few = self._shown(self.spec, self.pool, seed, key)
            prompt = self._prompt(seed, chosen)
        except TemplateError as error:  # The seed alone went; with these beside it, it doesn't.
            fault = Reason.PROMPT_TOO_LONG, str(error)
        if few is not None:
            fault = Reason.TOO_FEW_DEMONSTRATIONS, few
        return Row(seed, key, chosen, prompt, tools_of(seed, tools), fault)

    def _shown(
        self, spec: Shots, pool: Pool, seed: Seed, key: str
    ) -> tuple[tuple[Seed, ...], str | None]:
        """The demonstrations of a row, as they are shown; why they don't do, if they don't."""
        chosen, fault = choose(pool, spec, seed, key), None
        if len(chosen) < spec.demonstrations:
            wanted = spec.demonstrations
            fault = f"the pool holds {len(chosen)} for this row, the spec asks for {wanted}"
        elif spec.demonstration_tokens is not None:
            chosen, fault = self._within(spec, spec.demonstration_tokens, seed, chosen)
        return arrange(spec, seed, chosen), fault

    def _prompt(self, seed: Seed, demos: tuple[Seed, ...]) -> tuple[Message, ...]:
        user = Message(role="user", content=self.template.render(seed, demos))
        turns = (*earlier_turns(seed, self.spec.turns), user)
        if self.system is None:
            return turns
        return (Message(role="system", content=self.system.render(seed)), *turns)

    def _within(
        self, spec: Shots, limit: int, seed: Seed, chosen: tuple[Seed, ...]
    ) -> tuple[tuple[Seed, ...], str | None]:
        """As many of the best demonstrations as the token limit allows, by bisection."""
        count = self.teacher.count_tokens
        assert count is not None  # `make_plan` has seen to it.
        bare = count(self._prompt(seed, ()), ())
        fits, over = 0, len(chosen) + 1
        while over - fits > 1:
            middle = (fits + over) // 2
            shown = arrange(spec, seed, chosen[:middle])
            if count(self._prompt(seed, shown), ()) - bare <= limit:
                fits = middle
            else:
                over = middle
        fault = None if fits else f"not one demonstration is within {limit} tokens"
        return chosen[:fits], fault

    def _samples(self, row: Row, known: dict[tuple[int, int], Call]) -> list[Sample] | Step:
        """All samples of a row, or what to ask for them."""
        count = self.spec.samples if isinstance(self.spec, CotBuild) else 1
        missing = [number for number in range(count) if (SAMPLES, number) not in known]
        if not missing:
            return [self._read(row, known[SAMPLES, number]) for number in range(count)]
        if len(missing) == count:
            unfit = self._unfit(row)
            if unfit is not None:
                return self._ending(row, known).rejected(*unfit)
        return tuple(self._ask(row, SAMPLES, number, row.prompt) for number in missing)

    def _unfit(self, row: Row) -> tuple[Reason, str] | None:
        """Why a row is not asked at all."""
        if row.fault is not None:
            return row.fault
        shown = shown_texts(self.template, row.seed) if self.evaluation else []
        for known in self.evaluation:
            overlap = known.find_row(row.seed, shown)
            if overlap is not None:
                where = f"{overlap.how} with {overlap.row!r} of {known.name}"
                return Reason.CONTAMINATED, f"{where}: {overlap.words}"
        too_long = self._too_long(row.prompt, row.tools)
        return None if too_long is None else (Reason.PROMPT_TOO_LONG, too_long)

    def _too_long(self, prompt: tuple[Message, ...], tools: tuple[Tool, ...]) -> str | None:
        context, count = self.teacher.context_tokens, self.teacher.count_tokens
        if context is None or count is None:
            return None
        tokens, limit = count(prompt, tools), self.spec.sampling.max_tokens
        if tokens + limit <= context:
            return None
        return f"{tokens} prompt tokens and max_tokens {limit} exceed the context of {context}"

    def _ask(self, row: Row, step: int, sample: int, prompt: tuple[Message, ...]) -> Request:
        spec = self.spec
        shared = isinstance(spec, Shots) and spec.fixed == "per_group"
        structured = [c for c in spec.checks if isinstance(c, JsonSchemaCheck) and c.structured]
        # What a teacher thinks of a rationale that it was hinted at is no signal for the student,
        # whose prompt is without the hint.
        top_k = spec.signal.top_k if spec.signal and step == SAMPLES else None
        return Request(
            row=row.seed["id"],
            step=step,
            sample=sample,
            messages=prompt,
            sampling=seeded(spec.sampling, row.seed["id"], step, sample),
            teacher=writer_of(spec, row.seed["id"]),
            schema=structured[0].json_schema if structured else None,
            signal_top_k=top_k,
            tools=row.tools,
            prefix=prefix_key(row) if shared else None,
        )

    def _read(self, row: Row, call: Call) -> Sample:
        reply = read_reply(self.spec, self.verifier, row.seed, call)
        if call.finish_reason == REFUSED:
            return Sample(call, reply, (Reason.TEACHER_ERROR, call.error or "no reason was given"))
        fault = first_fault(Kind(self.spec.kind), reply)
        if fault is not None:
            return Sample(call, reply, fault)
        found = list(findings(self.spec.checks, reply))
        fault = next(((one.reason, one.detail) for one in found if one.rejects), None)
        return Sample(call, reply, fault, tuple(one.reason for one in found if not one.rejects))

    def _draft(
        self, row: Row, known: dict[tuple[int, int], Call], samples: list[Sample]
    ) -> Draft | Fault | tuple[Request, ...]:
        """What is kept of the samples, or of the hinted answer."""
        spec = self.spec
        limit = spec.min_agreement if isinstance(spec, CotBuild) else None
        draft = keep_one(samples, self.verifier, limit)
        if (
            not isinstance(spec, CotBuild)
            or spec.rationalise is None
            or not isinstance(draft, Fault)
        ):
            return draft
        gold = samples[0].reply.gold
        if gold is None or not all_wrong(samples):
            return draft
        hint = compile_template(spec.rationalise.hint).render({**row.seed, "gold": gold})
        hinted = with_hint(row.prompt, hint)
        if (HINT, 0) in known:
            again = self._read(row, known[HINT, 0])
            told = Draft(again, hinted=True)
            return told if again.fault is None else Fault(*again.fault, told)
        too_long = self._too_long(hinted, row.tools)
        return draft if too_long else (self._ask(row, HINT, 0, hinted),)

    def _judge(self, row: Row, known: dict[tuple[int, int], Call], draft: Draft) -> Step:
        judges, reply = judges_of(self.spec.checks), draft.sample.reply
        missing = [place for place in range(len(judges)) if (JUDGES, place) not in known]
        base, author = self.spec.sampling.seed, writer_of(self.spec, row.seed["id"])
        if missing:
            try:
                return tuple(ask_judge(judges[i], i, row, reply, base, author) for i in missing)
            except TemplateError as error:
                return self._ending(row, known).rejected(Reason.NO_SCORE, f"judge: {error}", draft)
        verdict = read_verdict(judges, known, author)
        ending = self._ending(row, known, verdict.judgements)
        if verdict.fault is not None:
            return ending.rejected(*verdict.fault, draft)
        return ending.accepted(draft)

    def _ending(
        self,
        row: Row,
        known: dict[tuple[int, int], Call],
        judgements: tuple[Judgement, ...] = (),
    ) -> Ending:
        calls = [known[place] for place in sorted(known)]
        return Ending(self.spec, row, self.teacher, calls, judgements)
