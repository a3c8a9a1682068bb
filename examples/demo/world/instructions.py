"""Instructions: operations on a list of words, composed; each step is written as one line."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from examples.demo.world.problem import Problem, Split, percentile_of, split_of
from examples.demo.world.words import LIST_WORDS

HELDOUT_PAIR_PERCENT = 25
HOLDOUT_SALT = "pair"


@dataclass(frozen=True)
class Operation:
    """A change to a list, how it is asked for first ("...: a b c.") and later ("Then ...")."""

    first: str
    later: str
    change: Callable[[list[str]], list[str]]


OPERATIONS: dict[str, Operation] = {
    "sort": Operation("Sort these words", "sort them", lambda words: sorted(words, key=str.lower)),
    "reverse": Operation("Reverse these words", "reverse them", lambda words: words[::-1]),
    "drop-first": Operation(
        "Drop the first of these words", "drop the first one", lambda words: words[1:]
    ),
    "drop-last": Operation(
        "Drop the last of these words", "drop the last one", lambda words: words[:-1]
    ),
    "upper-first": Operation(
        "Upper-case the first of these words",
        "upper-case the first one",
        lambda words: [words[0].upper(), *words[1:]],
    ),
    "upper-second": Operation(
        "Upper-case the second of these words",
        "upper-case the second one",
        lambda words: [words[0], words[1].upper(), *words[2:]],
    ),
    "upper-last": Operation(
        "Upper-case the last of these words",
        "upper-case the last one",
        lambda words: [*words[:-1], words[-1].upper()],
    ),
    "keep-first-two": Operation(
        "Keep the first two of these words", "keep the first two", lambda words: words[:2]
    ),
    "keep-last-two": Operation(
        "Keep the last two of these words", "keep the last two", lambda words: words[-2:]
    ),
    "swap-first-two": Operation(
        "Swap the first two of these words",
        "swap the first two",
        lambda words: [words[1], words[0], *words[2:]],
    ),
    "swap-ends": Operation(
        "Swap the first and the last of these words",
        "swap the first and the last",
        lambda words: [words[-1], *words[1:-1], words[0]],
    ),
    "first-to-end": Operation(
        "Move the first of these words to the end",
        "move the first one to the end",
        lambda words: [*words[1:], words[0]],
    ),
}


def is_heldout_pair(first: str, second: str) -> bool:
    """Whether these operations, in this order, are kept out of all training."""
    return percentile_of(f"{HOLDOUT_SALT} {first} {second}") < HELDOUT_PAIR_PERCENT


def draw_instruction(
    rng: Random, split: Split, operations: int, *, heldout_pairs: bool = False
) -> Problem:
    """An instruction of one to three different operations on three to five words.

    With `heldout_pairs` every ordered pair of its operations is a held-out one, and else none.
    """
    while True:
        names = tuple(rng.sample(list(OPERATIONS), operations))
        words = rng.sample(LIST_WORDS, rng.randint(3, 5))
        pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
        if any(is_heldout_pair(a, b) != heldout_pairs for a, b in pairs):
            continue
        lines = apply(names, words)
        if lines and split_of(" ".join([*names, *words])) == split:
            return _problem(names, words, lines, split)


def apply(names: tuple[str, ...], words: list[str]) -> list[str]:
    """The list after each operation, one line each; empty if a step would have nothing to do."""
    lines = []
    for name in names:
        if len(words) < (3 if name.startswith("keep") else 2):
            return []
        words = OPERATIONS[name].change(words)
        lines.append(" ".join(words))
    return lines


def told(names: tuple[str, ...], words: list[str]) -> str:
    """The instruction in words; without `words` it speaks of a list that stands elsewhere."""
    first, *rest = (OPERATIONS[name] for name in names)
    sentences = [f"{first.first}: {' '.join(words)}." if words else f"{first.first}."]
    sentences += [f"Then {operation.later}." for operation in rest]
    return " ".join(sentences)


def understood(instruction: str) -> tuple[tuple[str, ...], list[str]] | None:
    """The operations and words of an instruction, as `told` writes them; None if it is none."""
    head, *rest = instruction.removesuffix(".").split(". Then ")
    first, _, words = head.partition(": ")
    try:
        names = (_FIRST[first], *(_LATER[name] for name in rest))
    except KeyError:
        return None
    return (names, words.split()) if told(names, words.split()) == instruction else None


_FIRST = {operation.first: name for name, operation in OPERATIONS.items()}
_LATER = {operation.later: name for name, operation in OPERATIONS.items()}


def _problem(names: tuple[str, ...], words: list[str], lines: list[str], split: Split) -> Problem:
    instruction = told(names, words)
    return Problem(
        skill="if",
        user=instruction,
        completion="\n".join(lines),
        answer=lines[-1],
        split=split,
        seed={"instruction": instruction, "answer": lines[-1]},
    )
