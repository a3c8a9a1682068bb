"""Self-instruct [2212.10560]: the teacher writes tasks after examples from a growing pool.

The steps of one row: write an instruction; is it a classification task? If so a label first and
then an input that has it, lest all inputs have the same label; otherwise an input, if one is
needed, and then the answer. The pool is that of the rounds before the row's own.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from random import Random

from prompts.instructions.pool import RoundPools, TaskPool, drawn
from prompts.instructions.steps import (
    WRITING,
    Calls,
    as_task,
    ask,
    own_calls,
    refused,
    reject,
    unwritten,
    with_usage,
    writing_calls,
)
from prompts.overlap import words_of
from prompts.plan import NotNeeded, Plan, Request
from prompts.record import Call, Reason, Record, Rejected, Seed
from prompts.spec.methods import Magpie, SelfInstruct
from prompts.spec.sampling import Sampling
from prompts.spec.writing import NO_INPUT, told
from prompts.template import TemplateError

WRITE_STEP, CLASSIFY_STEP, INPUT_STEP, LABEL_STEP, LABELLED_STEP = range(WRITING, WRITING + 5)
_LABELS = 5
"""Labels are asked for by their number, one to this, so that rows don't all get the first."""
_IMPOSSIBLE = frozenset(
    {"image", "images", "picture", "pictures", "photo", "graph", "video", "draw"}
)
_SHORTEST_WORDS = 3


def slots(method: SelfInstruct | Magpie) -> Iterator[Seed]:
    """The rows of a build: one for each instruction that is asked for, round by round."""
    for turn in range(method.rounds):
        for number in range(method.rows_per_round):
            yield {"id": f"round{turn:03d}-{number:06d}", "round": turn}


@dataclass(frozen=True)
class SelfInstructPlan:
    """The plan of a self-instruct build, around the plan that answers."""

    plan: Plan
    method: SelfInstruct
    pools: RoundPools

    def next(self, seed: Seed, calls: Sequence[Call]) -> tuple[Request, ...] | Record | Rejected:
        """Like `Plan.next`; `seed` is one of `slots`."""
        known = writing_calls(calls)
        pool = self.pools(seed["round"])
        refusal = next((call for call in known.values() if refused(call)), None)
        if refusal is not None:
            detail = refusal.error or "the server gave no reason"
            return self._reject(seed, calls, Reason.TEACHER_ERROR, detail)
        try:
            return self._step(seed, pool, known, calls)
        except TemplateError as error:  # The recipe's prompt went with our samples, not with these.
            return self._reject(seed, calls, Reason.NO_INSTRUCTION, str(error))

    def not_needed(self, seed: Seed, why: NotNeeded, calls: Sequence[Call] = ()) -> Rejected:
        """Like `Plan.not_needed`."""
        return unwritten(self.plan.not_needed(as_task(seed, ""), why, calls), seed)

    def kept(self, seed: Seed, calls: Sequence[Call]) -> Call | None:
        """Like `Plan.kept`; None for classification tasks, whose labels are no answers."""
        known = writing_calls(calls)
        if WRITE_STEP not in known or INPUT_STEP not in known:
            return None
        task = as_task(seed, _instruction(known[WRITE_STEP].text), _input(known[INPUT_STEP].text))
        return self.plan.kept(task, own_calls(calls))

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

    def _step(
        self, seed: Seed, pool: TaskPool, known: Calls, calls: Sequence[Call]
    ) -> tuple[Request, ...] | Record | Rejected:
        """What comes after the answers so far. Raises TemplateError."""
        if WRITE_STEP not in known:
            return self._ask(seed, WRITE_STEP, self._write(seed, pool))
        instruction = _instruction(known[WRITE_STEP].text)
        fault = self._fault(instruction, known[WRITE_STEP])
        if fault is not None:
            return self._reject(seed, calls, Reason.NO_INSTRUCTION, fault)
        found = pool.likest(instruction)
        if found is not None:
            detail = f"ROUGE-L {found.score:.3f} with task {found.row!r}"
            return self._reject(seed, calls, Reason.NOT_NOVEL, detail, found.row)
        return self._instance(seed, instruction, known, calls)

    def _instance(
        self, seed: Seed, instruction: str, known: Calls, calls: Sequence[Call]
    ) -> tuple[Request, ...] | Record | Rejected:
        """Input and answer of a written instruction."""
        asked = self.method.prompts
        if CLASSIFY_STEP not in known:
            text = told(asked.classify, instruction=instruction)
            return self._ask(seed, CLASSIFY_STEP, text, sure=True)
        if words_of(known[CLASSIFY_STEP].text)[:1] == ("yes",):
            return self._classification(seed, instruction, known, calls)
        if INPUT_STEP not in known:
            text = told(asked.input, instruction=instruction, no_input=NO_INPUT)
            return self._ask(seed, INPUT_STEP, text)
        task = as_task(seed, instruction, _input(known[INPUT_STEP].text))
        return self._answer(task, own_calls(calls), calls)

    def _classification(
        self, seed: Seed, instruction: str, known: Calls, calls: Sequence[Call]
    ) -> tuple[Request, ...] | Record | Rejected:
        """The label first: the answer is there before the input."""
        asked = self.method.prompts
        if LABEL_STEP not in known:
            number = _number(seed["id"]) % _LABELS + 1
            text = told(asked.label, instruction=instruction, number=number)
            return self._ask(seed, LABEL_STEP, text)
        label = known[LABEL_STEP].text.strip()
        if LABELLED_STEP not in known:
            text = told(asked.labelled_input, instruction=instruction, label=label)
            return self._ask(seed, LABELLED_STEP, text)
        task = as_task(seed, instruction, _input(known[LABELLED_STEP].text))
        answer = known[LABEL_STEP].model_copy(update={"step": 0, "text": label})
        return self._answer(task, [answer], calls)

    def _answer(
        self, task: Seed, answers: list[Call], calls: Sequence[Call]
    ) -> tuple[Request, ...] | Record | Rejected:
        step = self.plan.next(task, [*answers, *(call for call in own_calls(calls) if call.step)])
        return step if isinstance(step, tuple) else with_usage(step, calls)

    def _ask(self, seed: Seed, step: int, text: str, sure: bool = False) -> tuple[Request, ...]:
        sampling: Sampling = self.method.sampling
        if sure:
            sampling = sampling.model_copy(update={"temperature": 0.0})
        return ask(self.plan, seed, step, text, sampling)

    def _write(self, seed: Seed, pool: TaskPool) -> str:
        generator = Random(_number(seed["id"]))
        wanted = self.method.shown_seeds + self.method.shown_written
        places = [generator.randrange(1 << 30) for _ in range(2 * wanted)]
        earlier = drawn(pool.written, self.method.shown_written, places[:wanted])
        shown = drawn(pool.seeds, wanted - len(earlier), places[wanted:]) + earlier
        generator.shuffle(shown)
        tasks = [" ".join(text.split()) for text in shown]
        return told(self.method.prompts.write, tasks=tasks, number=len(tasks) + 1)

    def _fault(self, instruction: str, call: Call) -> str | None:
        words = words_of(instruction)
        if call.finish_reason != "stop":
            return f"it was cut off (finish_reason {call.finish_reason!r})"
        if not _SHORTEST_WORDS <= len(words) <= self.method.max_words:
            return f"an instruction of {len(words)} words: {instruction[:200]!r}"
        impossible = sorted(_IMPOSSIBLE & set(words))
        return f"it is about what text can't hold: {impossible[0]}" if impossible else None

    def _reject(
        self,
        seed: Seed,
        calls: Sequence[Call],
        reason: Reason,
        detail: str,
        like: str | None = None,
    ) -> Rejected:
        return unwritten(reject(self.plan, as_task(seed, ""), calls, reason, detail, like), seed)


def _instruction(text: str) -> str:
    """The first paragraph, without the number and word that the request ends with."""
    first = text.strip().partition("\n\n")[0].strip()
    head, mark, rest = first.partition("Instruction:")
    return (rest if mark and len(head) < 6 else first).strip().strip('"')


def _input(text: str) -> str | None:
    found = text.strip().removeprefix("Input:").strip()
    return None if not found or found.strip(".").casefold() in (NO_INPUT, "none", "n/a") else found


def _number(text: str) -> int:
    return int.from_bytes(sha256(f"self-instruct\n{text}".encode()).digest()[:8], "big")
