"""Tasks that the instructor writes, answers and rewrites: orders, and picking a kind of word.

> Sort these words: peach ferry mango. Then drop the last one.

is an order; its list may also be an input of its own, after `Sort these words. Then drop the last
one.` A pick is a classification, and always has an input:

> Pick a kind: animal, fruit, job.
>
> kiwi

`python -m examples.demo.tasks > examples/demo/tasks.seeds.jsonl` writes what self-instruct begins
with. The file is no part of `data/`, which studies of the two older models are fingerprinted by.
"""

import json
from dataclasses import dataclass
from functools import lru_cache
from random import Random

from examples.demo import world
from examples.demo.world.words import CATEGORIES, LIST_WORDS

MOST_STEPS, FEWEST_WORDS, MOST_WORDS = 4, 3, 6
KINDS = (3, 5)
PICK = "Pick a kind: "
_KIND_OF = {word: kind for kind, words in CATEGORIES.items() for word in words}
_heldout = lru_cache(maxsize=None)(world.is_heldout_pair)


@dataclass(frozen=True)
class Order:
    """Operations, in their order, on words; without words on a list that is given apart."""

    names: tuple[str, ...]
    words: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The instruction."""
        return world.told(self.names, list(self.words))

    def answer(self, given: str = "") -> str | None:
        """A line for each operation; None where one would have nothing to do."""
        words = [*self.words, *given.split()]
        told_once = not (self.words and given)
        known = len(set(words)) == len(words) and set(words) <= set(LIST_WORDS)
        fits = FEWEST_WORDS <= len(words) <= MOST_WORDS and len(self.names) <= MOST_STEPS
        lines = world.apply(self.names, words) if told_once and known and fits else []
        return "\n".join(lines) or None

    @property
    def split(self) -> world.Split:
        """Of its content."""
        return world.split_of(" ".join([*self.names, *self.words]))

    @property
    def known(self) -> bool:
        """Whether training may show it: no pair of its operations is a held-out one."""
        names = self.names
        return not any(_heldout(a, b) for i, a in enumerate(names) for b in names[i + 1 :])


@dataclass(frozen=True)
class Pick:
    """Which of these kinds is the word that is given?"""

    kinds: tuple[str, ...]

    @property
    def text(self) -> str:
        """The instruction."""
        return f"{PICK}{', '.join(self.kinds)}."

    def answer(self, given: str = "") -> str | None:
        """The kind; None for a word of another kind, or none."""
        kind = _KIND_OF.get(given)
        return kind if kind in self.kinds else None

    @property
    def split(self) -> world.Split:
        """Of its content."""
        return world.split_of(" ".join(self.kinds))


Task = Order | Pick


def read_task(instruction: str) -> Task | None:
    """The task that an instruction tells; None if it isn't in the world's grammar."""
    if instruction.startswith(PICK):
        kinds = tuple(instruction.removeprefix(PICK).removesuffix(".").split(", "))
        pick = Pick(kinds)
        least, most = KINDS
        good = least <= len(kinds) <= most and len(set(kinds)) == len(kinds)
        return pick if good and set(kinds) <= set(CATEGORIES) and pick.text == instruction else None
    found = world.understood(instruction)
    return Order(found[0], tuple(found[1])) if found else None


def answer_to(prompt: str) -> str | None:
    """The whole right answer to a task and, after an empty line, its input; None if it has none."""
    instruction, _, given = prompt.partition("\n\n")
    task = read_task(instruction)
    return task.answer(given) if task is not None else None


def is_possible(instruction: str) -> bool:
    """Whether it is a task that can be carried out; one without its list, on some list."""
    task = read_task(instruction)
    if not isinstance(task, Order) or task.words:
        return isinstance(task, Pick) or (task is not None and task.answer() is not None)
    lists = (" ".join(LIST_WORDS[:n]) for n in range(FEWEST_WORDS, MOST_WORDS + 1))
    return any(task.answer(given) for given in lists)


def draw_order(
    rng: Random, split: world.Split, steps: int, words: int, apart: bool = False
) -> tuple[Order, str]:
    """An order of known pairs that can be carried out, and its list where that stands apart."""
    while True:
        names = tuple(rng.sample(list(world.OPERATIONS), steps))
        whole = Order(names, tuple(rng.sample(LIST_WORDS, words)))
        if whole.known and whole.answer() and whole.split == split:
            return (Order(names), " ".join(whole.words)) if apart else (whole, "")


def draw_pick(rng: Random, split: world.Split) -> tuple[Pick, str]:
    """A pick, and a word of one of its kinds."""
    while True:
        pick = Pick(tuple(rng.sample(list(CATEGORIES), rng.randint(*KINDS))))
        if pick.split == split:
            return pick, rng.choice(CATEGORIES[rng.choice(pick.kinds)])


def draw_task(rng: Random, split: world.Split, most_steps: int = 3) -> tuple[Task, str]:
    """Any task and its input, if it has one: an order with its list, one without, or a pick."""
    kind = rng.random()
    if kind < 0.2:
        return draw_pick(rng, split)
    steps = rng.choice([n for n in (1, 2, 2, 3, 3, 4) if n <= most_steps])
    return draw_order(rng, split, steps, rng.randint(FEWEST_WORDS, 5), apart=kind < 0.4)


def seed_rows(count: int = 60) -> list[dict[str, str]]:
    """Different tasks of every sort, as people might have written them for a start."""
    rng = Random("task seeds")
    rows: dict[str, dict[str, str]] = {}
    while len(rows) < count:
        task, given = draw_task(rng, "seed")
        row = {"id": f"task-{len(rows):03d}", "instruction": task.text}
        rows.setdefault(task.text, row | ({"input": given} if given else {}))
    return list(rows.values())


if __name__ == "__main__":
    for seed in seed_rows():
        print(json.dumps(seed))
