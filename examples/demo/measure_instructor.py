"""Measure the instructor: `python -m examples.demo.measure_instructor --n 200`.

Greedy decoding in transformers on the held-out split: the world's instructions, then each thing
that self-instruct and evol-instruct ask. A reply is right if it does what was asked, by the world's
rules; it need not be the one that a lesson would have shown.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from random import Random

import torch
from transformers import LlamaForCausalLM

from examples.demo import instructor, world
from examples.demo.answers import ask, is_right
from examples.demo.cards import fill
from examples.demo.heldout import SETS
from examples.demo.instructor import Lesson
from examples.demo.measure import Figure, measure
from examples.demo.shape import MODELS
from examples.demo.tasks import MOST_WORDS, Order, Pick, answer_to, is_possible, read_task
from examples.demo.tokenizer import load_tokenizer
from examples.demo.world.words import CATEGORIES
from prompts.spec.writing import NO_INPUT

ORDERS = ("if-1", "if-2", "if", "if-3")
MADE = (
    "from the teacher's weights on generated text only: `python -m examples.demo.train_instructor`"
)
INTENT = (
    "The demo's model that writes instructions. It follows the world's instructions, picks "
    "kinds of words, and answers what self-instruct and evol-instruct ask, in the words of "
    "`examples/recipes/build-self-instruct.yaml` and `build-evol-instruct.yaml`. The stories and "
    "the tasks in context were no part of its training."
)


def main() -> None:
    """Print the table; with --write-card put it into the model's README.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=MODELS / "instructor")
    parser.add_argument("--n", type=int, default=200, help="problems per line")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--write-card", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    model = LlamaForCausalLM.from_pretrained(given.model, dtype=torch.bfloat16)
    tokenizer = load_tokenizer(given.model)
    figures = {
        f"{SETS[name][0]} (`{name}`)": figure
        for name, figure in measure(model, tokenizer, given.n, ORDERS).items()
    }
    for name, (lesson, fits) in CHECKS.items():
        problems = drawn(lesson, given.n)
        texts = ask(model, tokenizer, problems)
        figures[name] = Figure(sum(map(fits, problems, texts)), given.n)
    print(table(figures), flush=True)
    if given.write_card:
        fill(given.model, model, table(figures), INTENT, MADE, "measure_instructor")


def drawn(lesson: Lesson, count: int) -> list[world.Problem]:
    """Held-out problems of one lesson, the same in every run."""
    rng = Random(f"heldout {lesson.__name__}")
    return [instructor.problem(lesson, rng, "heldout") for _ in range(count)]


def table(figures: dict[str, Figure]) -> str:
    """The figures as a Markdown table."""
    lines = ["| held-out | right | asked | share | 95% interval |", "|---|--:|--:|--:|--:|"]
    for name, figure in figures.items():
        low, high = figure.interval()
        share = f"{figure.right} | {figure.asked} | {figure.accuracy:.1%}"
        lines.append(f"| {name} | {share} | {low:.1%} to {high:.1%} |")
    return "\n".join(lines)


def exactly(problem: world.Problem, text: str) -> bool:
    """The one right reply."""
    return text.strip() == problem.completion


def new_task(problem: world.Problem, text: str) -> bool:
    """A task that can be carried out, and none of those shown."""
    return is_possible(text) and f"Task: {text}" not in problem.user.split("\n")


def right_input(problem: world.Problem, text: str) -> bool:
    """A list that the order can work on, or none where it has its own."""
    task = subject(problem)
    if isinstance(task, Order) and task.words:
        return text == NO_INPUT
    return answer_to(f"{task.text}\n\n{text}") is not None


def right_label(problem: world.Problem, text: str) -> bool:
    """One of the kinds to pick from, whatever its number."""
    task = subject(problem)
    return isinstance(task, Pick) and text in task.kinds


def labelled_word(problem: world.Problem, text: str) -> bool:
    """A word of the label's kind."""
    label = problem.user.split("\n")[1].removeprefix("Label: ")
    return text in CATEGORIES[label]


def longer(problem: world.Problem, text: str) -> bool:
    """One more operation at the end; unchanged only where none could follow."""
    before, after = subject(problem), read_task(text)
    assert isinstance(before, Order)
    more = (Order((*before.names, name), before.words) for name in world.OPERATIONS)
    if not any(task.answer() for task in more):
        return before == after
    if not (isinstance(after, Order) and is_possible(text)):
        return False
    return (after.names[:-1], after.words) == (before.names, before.words)


def wider(problem: world.Problem, text: str) -> bool:
    """One more word at the end; unchanged only where the list is full."""
    before, after = subject(problem), read_task(text)
    assert isinstance(before, Order)
    if len(before.words) == MOST_WORDS:
        return before == after
    if not (isinstance(after, Order) and is_possible(text)):
        return False
    return (after.names, after.words[:-1]) == (before.names, before.words)


def another(problem: world.Problem, text: str) -> bool:
    """Other operations, as many."""
    before, after = subject(problem), read_task(text)
    if not (isinstance(before, Order) and isinstance(after, Order) and is_possible(text)):
        return False
    return len(after.names) == len(before.names) and after.names != before.names


def subject(problem: world.Problem) -> Order | Pick:
    """The task that a request is about."""
    task = read_task(problem.user.split("\n")[0].removeprefix("Task: "))
    assert task is not None
    return task


CHECKS: dict[str, tuple[Lesson, Callable[[world.Problem, str], bool]]] = {
    "orders of 1 to 4 steps, no held-out pair": (instructor.order, is_right),
    "any task with its input": (instructor.answer, exactly),
    "`write`: a task that can be carried out, not one shown": (instructor.write, new_task),
    "`classify`": (instructor.classify, exactly),
    "`input`: one that fits, or none": (instructor.give_input, right_input),
    "`label`: one of the kinds": (instructor.label, right_label),
    "`labelled_input`: a word of that kind": (instructor.labelled_input, labelled_word),
    "`constrain`: one more step, all else unchanged": (instructor.constrain, longer),
    "`complicate_input`: one more word, all else unchanged": (instructor.complicate, wider),
    "`broaden`: as many other steps": (instructor.broaden, another),
    "`compare`": (instructor.compare, exactly),
}


if __name__ == "__main__":
    main()
