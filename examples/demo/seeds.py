"""Write seed files and held-out evaluation files: `python -m examples.demo.seeds --out DIR`.

| file | rows |
|---|---|
| `cot.seeds.jsonl` | id, question, answer |
| `icl.seeds.jsonl` | id, input, output, task |
| `icl.pool.jsonl` | the same fields: demonstrations of the same tasks, none of them a seed |
| `if.seeds.jsonl` | id, instruction, answer |
| `eval.<set>.jsonl` | id, skill, prompt (messages), answer, kind, check |
| `evaluation.jsonl` | the same: one set of each skill, for recipes |

Seeds are drawn from the split `seed`, evaluation rows from `heldout`; a problem's content decides
its split, so nothing is in two of them.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from random import Random

from examples.demo import world
from examples.demo.heldout import heldout
from examples.demo.world.words import CATEGORIES

EVALUATION_SETS = ("cot", "cot-direct", "icl", "icl-zero", "if")
SKILL_SETS = ("cot", "icl", "if")
POOL_PER_CATEGORY = 6
Row = dict[str, object]


def write_all(out: Path, cot: int, icl: int, orders: int, evaluation: int) -> dict[str, int]:
    """Write every file; returns the number of rows by file name."""
    icl_seeds, pool = icl_rows(icl)
    files: dict[str, list[Row]] = {
        "cot.seeds.jsonl": seed_rows("cot", cot),
        "icl.seeds.jsonl": icl_seeds,
        "icl.pool.jsonl": pool,
        "if.seeds.jsonl": seed_rows("if", orders),
    }
    for name in EVALUATION_SETS:
        files[f"eval.{name}.jsonl"] = [evaluation_row(p) for p in heldout(name, evaluation)]
    files["evaluation.jsonl"] = [row for name in SKILL_SETS for row in files[f"eval.{name}.jsonl"]]
    out.mkdir(parents=True, exist_ok=True)
    for name, rows in files.items():
        (out / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {name: len(rows) for name, rows in files.items()}


def draw_seed_problems(skill: world.Skill, count: int) -> list[world.Problem]:
    """`count` different problems out of the split `seed`, the ones that seed files hold."""
    rng, draw = Random(f"{skill} seeds"), DRAWS[skill]
    problems: dict[str, world.Problem] = {}
    while len(problems) < count:
        problem = draw(rng)
        problems.setdefault(problem.id, problem)
    return list(problems.values())


def draw_story(rng: Random) -> world.Problem:
    """A story of one to four steps; longer ones more often, since they teach composing."""
    steps = rng.choice((1, 2, 2, 3, 3, 4, 4))
    return world.draw_story(rng, "seed", steps, distractors=rng.choice((0, 1, 2)))


def draw_instruction(rng: Random) -> world.Problem:
    """One to three operations, no pair of them a held-out one."""
    return world.draw_instruction(rng, "seed", rng.choice((1, 2, 2, 2, 3)))


def draw_task(rng: Random) -> world.Problem:
    """A task with its demonstrations, as the product's template would show it."""
    return world.draw_icl(rng, "seed", rng.choice((4, 6, 8)), rng.choice((2, 3)))


DRAWS: dict[world.Skill, Callable[[Random], world.Problem]] = {
    "cot": draw_story,
    "icl": draw_task,
    "if": draw_instruction,
}


def icl_rows(count: int) -> tuple[list[Row], list[Row]]:
    """Seeds, and the pool of labelled demonstrations; each task's words are in one or the other.

    Tasks have two classes: four random demonstrations then nearly always show both.
    """
    rng = Random("icl seeds")
    seeds: list[Row] = []
    pool: list[Row] = []
    while len(seeds) < count:
        mapping = world.draw_mapping(rng, "seed", 2)
        for category in mapping.categories:
            words = rng.sample(CATEGORIES[category], len(CATEGORIES[category]))
            rows = [_labelled(word, mapping.label_of(word), mapping.name) for word in words]
            pool += rows[:POOL_PER_CATEGORY]
            seeds += rows[POOL_PER_CATEGORY:]
    return seeds[:count], pool


def evaluation_row(problem: world.Problem) -> Row:
    """A row of an evaluation file; `check` says how an answer is compared."""
    return {
        "id": problem.id,
        "skill": problem.skill,
        "prompt": [{"role": "user", "content": problem.user}],
        "answer": problem.answer,
        "kind": problem.skill,
        "check": "numeric" if problem.skill == "cot" else "exact_last_line",
    }


def _labelled(word: str, label: str, task: str) -> Row:
    return {"id": f"icl-{task}-{word}", "input": word, "output": label, "task": task}


def seed_rows(skill: world.Skill, count: int) -> list[Row]:
    """Seeds in the structured form that the product's templates take."""
    return [{"id": problem.id, **problem.seed} for problem in draw_seed_problems(skill, count)]


def main() -> None:
    """Read the command line, write the files, say how long they are."""
    parser = argparse.ArgumentParser(description="Write the demo's seed and evaluation files.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cot", type=int, default=4000)
    parser.add_argument("--icl", type=int, default=600)
    parser.add_argument("--if", dest="orders", type=int, default=600)
    parser.add_argument("--evaluation", type=int, default=300, help="rows per evaluation file")
    a = parser.parse_args()
    for name, rows in write_all(a.out, a.cot, a.icl, a.orders, a.evaluation).items():
        print(f"{rows:6d} {a.out / name}")


if __name__ == "__main__":
    main()
