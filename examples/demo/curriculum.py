"""What each model is shown at each step: fresh problems, a function of (role, seed, step)."""

from dataclasses import replace
from random import Random

from examples.demo import world
from examples.demo.shape import Role
from examples.demo.tokenizer import SYSTEM_PROMPTS

SYSTEM_RATE = 0.05
# Until this share of the training, stories and instructions stay short.
EASY_UNTIL = 0.15
WORDS_RETURN_UNTIL = 0.8


def draw_problems(
    role: Role, seed: int, step: int, progress: float, rows: int
) -> list[world.Problem]:
    """`rows` training problems for one step; `progress` in 0..1 says how far the training is."""
    rng = Random(f"{role} {seed} {step}")
    draw = draw_for_teacher if role == "teacher" else draw_for_student_base
    problems = (draw(rng, progress) for _ in range(rows))
    return [
        replace(problem, system=rng.choice(SYSTEM_PROMPTS))
        if rng.random() < SYSTEM_RATE
        else problem
        for problem in problems
    ]


def draw_for_teacher(rng: Random, progress: float) -> world.Problem:
    """All of the world: stories mostly with their steps, tasks in context, compositions."""
    easy = progress < EASY_UNTIL
    kind = rng.random()
    if kind < 0.55:
        # Short stories as often as long ones, or it learns to write on where it should stop.
        steps = rng.choice((1, 1, 2, 2, 3) if easy else (1, 2, 3, 4))
        return world.draw_story(
            rng, "train", steps, direct=rng.random() < 0.1, distractors=rng.choice((0, 1, 1, 2, 2))
        )
    if kind < 0.8:
        return draw_task(rng, progress)
    return world.draw_instruction(rng, "train", rng.choice((1, 1, 2) if easy else (1, 2, 2, 2, 3)))


def draw_task(rng: Random, progress: float) -> world.Problem:
    """A task in context; at first mostly ones whose very words come back."""
    kind = rng.random()
    if kind < 0.03:
        return world.draw_icl(rng, "train", 0, 2)
    if kind < 0.15:
        return world.draw_kind(rng, "train")
    early = progress < WORDS_RETURN_UNTIL
    if kind < (0.5 if early else 0.2):
        return world.draw_dictionary(rng, "train", rng.randint(3, 6), rng.randint(8, 12))
    if kind < (0.7 if early else 0.35):
        return world.draw_narrow_icl(
            rng, "train", rng.randint(6, 12), rng.randint(2, 5), words_each=rng.randint(1, 4)
        )
    return world.draw_icl(rng, "train", rng.randint(4, 10), rng.choice((2, 2, 3, 3, 4)))


def draw_for_student_base(rng: Random, progress: float) -> world.Problem:
    """The language and single steps only: nothing here has to be composed."""
    kind = rng.random()
    if kind < 0.45:
        direct = rng.random() < 0.1
        return world.draw_story(rng, "train", 1, direct=direct, distractors=rng.choice((0, 1, 2)))
    if kind < 0.7:
        if rng.random() < 0.1:
            return world.draw_icl(rng, "train", 0, 2)
        return world.draw_lookup(rng, "train", rng.randint(1, 6))
    return world.draw_instruction(rng, "train", 1)
