"""Story arithmetic: one to four steps, with sentences that do not matter mixed in."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from examples.demo.world.problem import Problem, Split, split_of
from examples.demo.world.words import CONTAINERS, NAMES, PLACES, THINGS

MAX_VALUE = 99
MAX_OPERAND = 20
MAX_STEPS = 4
THINK = " Think step by step."
DIRECT = " Answer directly."

QUESTIONS = (
    "How many {thing} does {owner} have now?",
    "How many {thing} does {owner} have in the end?",
    "What is the number of {thing} that {owner} has now?",
)
STARTS = (
    "{owner} has {n} {thing}.",
    "{owner} starts with {n} {thing}.",
    "There are {n} {thing} on the table of {owner}.",
)
GAINS = (
    "{owner} buys {n} more {thing}.",
    "{other} gives {owner} {n} {thing}.",
    "Then {owner} finds {n} {thing} in the {place}.",
    "{owner} gets {n} {thing} from {other}.",
)
LOSSES = (
    "{owner} gives {n} {thing} to {other}.",
    "Then {owner} loses {n} {thing} in the {place}.",
    "{owner} sells {n} {thing}.",
    "{other} takes {n} {thing} from {owner}.",
)
DISTRACTORS = (
    "{other} has {n} {extra}.",
    "{owner} also has {n} {extra}.",
    "{owner} is {n} years old.",
    "{other} gives {owner} {n} {extra}.",
    "The {extra} of {other} cost {n} dollars.",
    "{other} likes the {place}.",
    "{owner} sells {n} {extra}.",
    "There are {n} {extra} in the {place}.",
)


# What a sentence says of a number, up to the thing that is counted.
COUNTED = re.compile(r"\d+ \w+ with \d+ \w+|\d+ (?:more |fewer )?\w+|twice as many \w+")


@dataclass
class Sentence:
    """One sentence, with the equation of its step if it is one."""

    text: str
    equation: str = ""


@dataclass
class Tale:
    """A story while it is being told: whose things are counted, and how many they are."""

    owner: str
    thing: str
    value: int = 0
    sentences: list[Sentence] = field(default_factory=list)
    question: str = ""

    def tell(self, text: str) -> None:
        """Add a sentence at the end."""
        self.sentences.append(Sentence(text))

    def apply(self, left: int, symbol: str, right: int) -> None:
        """Make the last sentence the step `left symbol right`, and move to its result."""
        self.value = {"+": left + right, "-": left - right, "*": left * right}[symbol]
        self.sentences[-1].equation = f"{left}{symbol}{right}={self.value}"

    @property
    def steps(self) -> int:
        """How many steps were told."""
        return sum(bool(sentence.equation) for sentence in self.sentences)

    @property
    def reasoning(self) -> str:
        """Every number of the story in its order, with what is counted; at each step, its equation.

        A number stands before its thing, so nothing at the number tells whether it counts. Saying
        the thing first, then deciding, is what a small model can learn.
        """
        notes = []
        for sentence in self.sentences:
            if found := COUNTED.search(sentence.text):
                notes.append(", ".join(filter(None, (found[0], sentence.equation))))
        return "".join(f"{note}. " for note in notes)


def draw_story(
    rng: Random, split: Split, steps: int, *, direct: bool = False, distractors: int = 0
) -> Problem:
    """A story of exactly `steps` steps (1..4) out of `split`, in one of the two answer modes."""
    while True:
        tale = _tell(rng, steps, distractors)
        question = " ".join([*(sentence.text for sentence in tale.sentences), tale.question])
        if split_of(question) == split:
            return _problem(tale, question, split, direct)


def _problem(tale: Tale, question: str, split: Split, direct: bool) -> Problem:
    closing = f"The answer is {tale.value}."
    return Problem(
        skill="cot",
        user=question + (DIRECT if direct else THINK),
        completion=closing if direct else tale.reasoning + closing,
        answer=str(tale.value),
        split=split,
        seed={"question": question, "answer": str(tale.value)},
    )


def _tell(rng: Random, steps: int, distractors: int) -> Tale:
    tale = Tale(owner=rng.choice(NAMES), thing=rng.choice(THINGS))
    _open(tale, rng, steps)
    while tale.steps < steps:
        last = tale.steps == steps - 1
        rng.choice(_applicable(tale, last))(tale, rng)
    if not tale.question:
        tale.question = rng.choice(QUESTIONS).format(thing=tale.thing, owner=tale.owner)
    for _ in range(distractors):
        sentence = _fill(rng.choice(DISTRACTORS), tale, rng, rng.randint(2, MAX_OPERAND))
        tale.sentences.insert(rng.randint(1, len(tale.sentences)), Sentence(sentence))
    return tale


def _open(tale: Tale, rng: Random, steps: int) -> None:
    if rng.random() < 0.15:
        boxes, each = rng.randint(2, 9), rng.randint(2, 9)
        container = rng.choice(CONTAINERS)
        tale.tell(f"{tale.owner} has {boxes} {container} with {each} {tale.thing} in each of them.")
        tale.apply(boxes, "*", each)
        return
    # Single steps have to cover every fact of the world, longer stories need room to grow.
    tale.value = rng.randint(2, MAX_VALUE - 2 if steps == 1 else MAX_VALUE // 2)
    tale.tell(_fill(rng.choice(STARTS), tale, rng, tale.value))


def _applicable(tale: Tale, last: bool) -> list[Callable[[Tale, Random], None]]:
    moves: list[Callable[[Tale, Random], None]] = []
    if tale.value + 2 <= MAX_VALUE:
        moves += [_gain, _gain, _more] + ([_together] if last else [])
    if tale.value >= 2:
        moves += [_lose, _lose, _fewer]
    if 2 <= tale.value <= MAX_VALUE // 2:
        moves.append(_twice)
    return moves


def _gain(tale: Tale, rng: Random) -> None:
    n = rng.randint(2, min(MAX_OPERAND, MAX_VALUE - tale.value))
    tale.tell(_fill(rng.choice(GAINS), tale, rng, n))
    tale.apply(tale.value, "+", n)


def _lose(tale: Tale, rng: Random) -> None:
    n = rng.randint(2, min(MAX_OPERAND, tale.value))
    tale.tell(_fill(rng.choice(LOSSES), tale, rng, n))
    tale.apply(tale.value, "-", n)


def _more(tale: Tale, rng: Random) -> None:
    n, other = rng.randint(2, min(MAX_OPERAND, MAX_VALUE - tale.value)), _other(tale, rng)
    tale.tell(f"{other} has {n} more {tale.thing} than {tale.owner}.")
    tale.owner = other
    tale.apply(tale.value, "+", n)


def _fewer(tale: Tale, rng: Random) -> None:
    n, other = rng.randint(2, min(MAX_OPERAND, tale.value)), _other(tale, rng)
    tale.tell(f"{other} has {n} fewer {tale.thing} than {tale.owner}.")
    tale.owner = other
    tale.apply(tale.value, "-", n)


def _twice(tale: Tale, rng: Random) -> None:
    other = _other(tale, rng)
    tale.tell(f"{other} has twice as many {tale.thing} as {tale.owner}.")
    tale.owner = other
    tale.apply(2, "*", tale.value)


def _together(tale: Tale, rng: Random) -> None:
    n, other = rng.randint(2, min(MAX_OPERAND, MAX_VALUE - tale.value)), _other(tale, rng)
    tale.tell(f"{other} has {n} {tale.thing}.")
    tale.question = f"How many {tale.thing} do {tale.owner} and {other} have together?"
    tale.apply(tale.value, "+", n)


def _other(tale: Tale, rng: Random) -> str:
    """A name that the story has not used yet: comparisons never point back."""
    told = " ".join(sentence.text for sentence in tale.sentences)
    return rng.choice([name for name in NAMES if name != tale.owner and name not in told])


def _fill(template: str, tale: Tale, rng: Random, n: int) -> str:
    return template.format(
        owner=tale.owner,
        other=rng.choice([name for name in NAMES if name != tale.owner]),
        thing=tale.thing,
        extra=rng.choice([thing for thing in THINGS if thing != tale.thing]),
        place=rng.choice(PLACES),
        n=n,
    )
