"""What each model is shown at each step: fresh problems, a function of (role, seed, step)."""

from dataclasses import replace
from random import Random

from examples.demo import world
from examples.demo.shape import Role
from examples.demo.tokenizer import SYSTEM_PROMPTS

SYSTEM_RATE = 0.05
# Until this share of the training, stories and instructions stay short.
EASY_UNTIL = 0.15
# Then, until the second share, nearly half of the rows are tasks, most of them dictionaries: a
# word's label can be looked up in context only after the model has learnt to look up at all.
LOOKING_UP = (0.41, 0.55)


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
    looking_up = LOOKING_UP[0] <= progress < LOOKING_UP[1]
    stories, tasks = (0.40, 0.45) if looking_up else (0.60, 0.20)
    kind = rng.random()
    if kind < stories:
        # Short stories as often as long ones, or it learns to write on where it should stop.
        steps = rng.choice((1, 1, 2, 2, 3) if easy else (1, 2, 3, 4))
        return world.draw_story(
            rng, "train", steps, direct=rng.random() < 0.1, distractors=rng.choice((0, 1, 1, 2, 2))
        )
    if kind < stories + tasks:
        return draw_dictionary(rng) if looking_up and rng.random() < 0.7 else draw_task(rng)
    return world.draw_instruction(rng, "train", rng.choice((1, 1, 2) if easy else (1, 2, 2, 2, 3)))


def draw_dictionary(rng: Random) -> world.Problem:
    """A few words that come back, each with its label."""
    return world.draw_dictionary(rng, "train", rng.randint(2, 5), rng.randint(8, 14))


def draw_task(rng: Random) -> world.Problem:
    """A task in context, or a step on the way to one: from words that come back to new ones."""
    kind = rng.random()
    if kind < 0.03:
        return world.draw_icl(rng, "train", 0, 2)
    if kind < 0.12:
        return world.draw_kind(rng, "train")
    if kind < 0.32:
        return draw_dictionary(rng)
    if kind < 0.55:
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
        # The kind of a thing, never a label that the demonstrations show: copying one is already
        # right for four answers in ten, and leaves nothing to learn from the teacher.
        if rng.random() < 0.3:
            return world.draw_icl(rng, "train", 0, 2)
        return world.draw_kind(rng, "train")
    return world.draw_instruction(rng, "train", 1)
