"""What each model is shown at each step: fresh problems, a function of (role, seed, step)."""

from dataclasses import dataclass, replace
from random import Random

from examples.demo import world
from examples.demo.shape import Role
from examples.demo.tokenizer import SYSTEM_PROMPTS

SYSTEM_RATE = 0.05


@dataclass(frozen=True)
class Mix:
    """What the teacher's rows are until a share of the training is over; the rest of them are
    instructions."""

    until: float
    stories: float
    repetitions: float
    dictionaries: float
    tasks: float


# A word's label, and the thing that a story counts, have to be looked up in context. A model learns
# that from repetitions in a few hundred steps, and from tasks alone not in five thousand.
LEARN_TO_LOOK_UP = Mix(until=0.09, stories=0.30, repetitions=0.45, dictionaries=0.10, tasks=0.05)
LOOK_UP_LABELS = Mix(until=0.30, stories=0.35, repetitions=0.25, dictionaries=0.20, tasks=0.07)
EVERYTHING = Mix(until=1.0, stories=0.68, repetitions=0.01, dictionaries=0.02, tasks=0.11)
MIXES = (LEARN_TO_LOOK_UP, LOOK_UP_LABELS, EVERYTHING)


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
    mix = next(mix for mix in MIXES if progress <= mix.until)
    easy = mix is LEARN_TO_LOOK_UP
    kind = rng.random()
    if kind < mix.stories:
        # Short stories as often as long ones, or it learns to write on where it should stop.
        steps = rng.choice((1, 1, 2, 2, 3) if easy else (1, 2, 3, 4))
        # What does not matter is the hardest: more of it than is measured.
        distractors = rng.choice((0, 1, 1, 2, 2) if easy else (0, 1, 2, 3, 4))
        direct = rng.random() < 0.1
        return world.draw_story(rng, "train", steps, direct=direct, distractors=distractors)
    kind -= mix.stories
    if kind < mix.repetitions:
        if easy or rng.random() < 0.15:
            return world.draw_repetition(rng, "train", rng.randint(6, 20))
        return world.draw_pairs(rng, "train", rng.randint(3, 10), draw_form(rng))
    kind -= mix.repetitions
    if kind < mix.dictionaries:
        return draw_dictionary(rng)
    if kind - mix.dictionaries < mix.tasks:
        return draw_task(rng)
    return world.draw_instruction(rng, "train", rng.choice((1, 1, 2) if easy else (1, 2, 2, 2, 3)))


def draw_dictionary(rng: Random) -> world.Problem:
    """A few words that come back, each with its label, in the form of the tasks or a closer one."""
    return world.draw_dictionary(
        rng, "train", rng.randint(2, 8), rng.randint(8, 18), draw_form(rng)
    )


def draw_form(rng: Random) -> world.Form:
    """The form of the tasks, or one in which a word and its label are closer to each other."""
    return world.FORM if rng.random() < 0.4 else rng.choice(world.OTHER_FORMS)


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
