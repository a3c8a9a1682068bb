"""The held-out problem sets that models are measured on: the same ones in every run."""

from collections.abc import Callable
from random import Random

from examples.demo import world

Draw = Callable[[Random, int], world.Problem]


def _story(steps: int | None, direct: bool) -> Draw:
    return lambda rng, index: world.draw_story(
        rng, "heldout", steps or 1 + index % 4, direct=direct, distractors=index % 3
    )


def _task(demonstrations: int) -> Draw:
    return lambda rng, index: world.draw_icl(rng, "heldout", demonstrations, 2 + index % 2)


def _order(operations: int, heldout_pairs: bool) -> Draw:
    return lambda rng, _: world.draw_instruction(
        rng, "heldout", operations, heldout_pairs=heldout_pairs
    )


SETS: dict[str, tuple[str, Draw]] = {
    "cot": ("stories of 1 to 4 steps, step by step", _story(None, False)),
    "cot-direct": ("stories of 1 to 4 steps, answered directly", _story(None, True)),
    "cot-1": ("stories of 1 step, step by step", _story(1, False)),
    "cot-4": ("stories of 4 steps, step by step", _story(4, False)),
    "icl": ("tasks of 2 or 3 classes, 4 demonstrations", _task(4)),
    "icl-zero": ("tasks of 2 or 3 classes, no demonstration", _task(0)),
    "icl-8": ("tasks of 2 or 3 classes, 8 demonstrations", _task(8)),
    "if": ("two operations, held-out compositions", _order(2, True)),
    "if-1": ("one operation, held-out lists", _order(1, False)),
    "if-2": ("two operations, known compositions, held-out lists", _order(2, False)),
    "if-3": ("three operations, every pair of them held out", _order(3, True)),
}


def heldout(name: str, rows: int) -> list[world.Problem]:
    """`rows` different problems of the set `name`."""
    rng, (_, draw) = Random(f"heldout {name}"), SETS[name]
    problems: dict[str, world.Problem] = {}
    while len(problems) < rows:
        problem = draw(rng, len(problems))
        problems.setdefault(problem.id, problem)
    return list(problems.values())
