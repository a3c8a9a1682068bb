"""What the instructor is shown: what self-instruct and evol-instruct ask, in the words of the
recipes, and the tasks themselves; all of it from the world's training split.

Rewritings are judged by a rule: a task gained nothing, and is Equal, if it asks for the same
operations in the same order, on as many words.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import jinja2
import yaml

from examples.demo import world
from examples.demo.tasks import (
    MOST_STEPS,
    MOST_WORDS,
    Order,
    Pick,
    Task,
    draw_order,
    draw_pick,
    draw_task,
)
from examples.demo.world.words import CATEGORIES, LIST_WORDS
from prompts.spec.writing import NO_INPUT

Split = world.Split
Lesson = Callable[[Random, Split], tuple[str, str]]
"""What is asked, and the reply."""
RECIPES = Path(__file__).parent.parent / "recipes"
LABELS = 5
"""Labels are asked for by a number, one to this."""
EQUAL, DIFFERENT = "Equal", "Different"


@cache
def method_of(recipe: str) -> dict[str, Any]:
    """The method of a committed recipe, as it is written there."""
    text = (RECIPES / f"{recipe}.yaml").read_text()
    method: dict[str, Any] = yaml.safe_load(text)["build"]["method"]
    return method


def asked(recipe: str, name: str, **fields: object) -> str:
    """What a recipe asks, rendered as a build renders it; a test compares the two."""
    return _template(method_of(recipe)["prompts"][name]).render(fields)


@cache
def _template(source: str) -> jinja2.Template:
    template: jinja2.Template = jinja2.Template(source, undefined=jinja2.StrictUndefined)
    return template


def written(name: str, **fields: object) -> str:
    """What self-instruct asks."""
    return asked("build-self-instruct", name, **fields)


def evolved(name: str, **fields: object) -> str:
    """What evol-instruct asks."""
    return asked("build-evol-instruct", name, **fields)


def draw(rng: Random) -> world.Problem:
    """One problem for training, of any lesson."""
    lesson = rng.choices(list(SHARES), weights=list(SHARES.values()))[0]
    return problem(lesson, rng, "train")


def problem(lesson: Lesson, rng: Random, split: Split) -> world.Problem:
    """A lesson's problem."""
    user, completion = lesson(rng, split)
    last = completion.split("\n")[-1]
    return world.Problem("if", user, completion, last, split, seed={})


def answer(rng: Random, split: Split) -> tuple[str, str]:
    """A task is carried out."""
    task, given = _any(rng, split)
    return f"{task.text}\n\n{given}" if given else task.text, task.answer(given) or ""


def order(rng: Random, split: Split) -> tuple[str, str]:
    """An order is carried out; those of many steps are the hardest."""
    steps = rng.choice((1, 2, 2, 3, 3, 3, 4, 4))
    whole, _ = draw_order(rng, split, steps, rng.randint(3, MOST_WORDS))
    return whole.text, whole.answer() or ""


def write(rng: Random, split: Split) -> tuple[str, str]:
    """One more task after some that are shown: none of theirs."""
    method = method_of("build-self-instruct")
    shown = method["shown_seeds"] + method["shown_written"]
    tasks = [_any(rng, split)[0].text for _ in range(shown)]
    while (more := _any(rng, split)[0].text) in tasks:
        pass
    return written("write", tasks=tasks, number=shown + 1), more


def classify(rng: Random, split: Split) -> tuple[str, str]:
    """Picks are classifications, orders are none."""
    task, _ = _any(rng, split)
    reply = "Yes" if isinstance(task, Pick) else "No"
    return written("classify", instruction=task.text), reply


def give_input(rng: Random, split: Split) -> tuple[str, str]:
    """The list of an order that has none of its own."""
    steps, words = rng.choice((1, 2, 3, 4)), rng.randint(3, MOST_WORDS)
    task, given = draw_order(rng, split, steps, words, apart=rng.random() < 0.6)
    return written("input", instruction=task.text, no_input=NO_INPUT), given or NO_INPUT


def label(rng: Random, split: Split) -> tuple[str, str]:
    """The label of a number; the list begins again after its last."""
    pick, _ = draw_pick(rng, split)
    number = rng.randint(1, LABELS)
    kind = pick.kinds[(number - 1) % len(pick.kinds)]
    return written("label", instruction=pick.text, number=number), kind


def labelled_input(rng: Random, split: Split) -> tuple[str, str]:
    """A word of the label's kind."""
    pick, _ = draw_pick(rng, split)
    kind = rng.choice(pick.kinds)
    asks = written("labelled_input", instruction=pick.text, label=kind)
    return asks, rng.choice(CATEGORIES[kind])


def constrain(rng: Random, split: Split) -> tuple[str, str]:
    """One more step; as it was, if none can follow."""
    task = _order(rng, split)
    return _rewrite(task, "constrain"), (_longer(rng, split, task) or task).text


def complicate(rng: Random, split: Split) -> tuple[str, str]:
    """One more word at the end of the list; as it was, if it is full."""
    task = _order(rng, split)
    return _rewrite(task, "complicate_input"), (_wider(rng, split, task) or task).text


def broaden(rng: Random, split: Split) -> tuple[str, str]:
    """Another order of as many steps: others, on other words."""
    task = _order(rng, split)
    return _rewrite(task, "broaden"), _other(rng, split, task).text


def compare(rng: Random, split: Split) -> tuple[str, str]:
    """Whether a rewriting has gained anything."""
    first = _order(rng, split)
    change = rng.random()
    if change < 0.45:
        second = _again(rng, split, first)
    elif change < 0.75:
        second = _longer(rng, split, first) or _again(rng, split, first)
    elif change < 0.9:
        second = _wider(rng, split, first) or _again(rng, split, first)
    else:
        second = _other(rng, split, first)
    return evolved("compare", first=first.text, second=second.text), verdict(first, second)


def verdict(first: Order, second: Order) -> str:
    """The rule."""
    same = first.names == second.names and len(first.words) == len(second.words)
    return EQUAL if same else DIFFERENT


SHARES: dict[Lesson, float] = {
    order: 0.28,
    answer: 0.10,
    write: 0.17,
    classify: 0.03,
    give_input: 0.06,
    label: 0.03,
    labelled_input: 0.03,
    constrain: 0.09,
    complicate: 0.06,
    broaden: 0.05,
    compare: 0.10,
}
"""Of the rows of a step."""


def _any(rng: Random, split: Split) -> tuple[Task, str]:
    return draw_task(rng, split, MOST_STEPS)


def _order(rng: Random, split: Split) -> Order:
    steps, words = rng.choice((1, 1, 2, 2, 2, 3, 3, 4)), rng.randint(3, MOST_WORDS)
    task, _ = draw_order(rng, split, steps, words)
    assert isinstance(task, Order)
    return task


def _rewrite(task: Order, operator: str) -> str:
    how = method_of("build-evol-instruct")["prompts"][operator]
    return evolved("rewrite", instruction=task.text, how=how)


def _longer(rng: Random, split: Split, task: Order) -> Order | None:
    for name in rng.sample(list(world.OPERATIONS), len(world.OPERATIONS)):
        longer = Order((*task.names, name), task.words)
        if name not in task.names and _fits(longer, split):
            return longer
    return None


def _wider(rng: Random, split: Split, task: Order) -> Order | None:
    for word in rng.sample(LIST_WORDS, len(LIST_WORDS)):
        wider = Order(task.names, (*task.words, word))
        if _fits(wider, split):
            return wider
    return None


def _other(rng: Random, split: Split, task: Order) -> Order:
    while True:
        other, _ = draw_order(rng, split, len(task.names), rng.randint(3, MOST_WORDS))
        if other.names != task.names and not set(other.words) & set(task.words):
            return other


def _again(rng: Random, split: Split, task: Order) -> Order:
    """The same order on other words: one of them, all, or the same ones told in another order."""
    words, kind = list(task.words), rng.random()
    if kind < 0.4:
        words[rng.randrange(len(words))] = rng.choice(LIST_WORDS)
    elif kind < 0.8:
        words = rng.sample(LIST_WORDS, len(words))
    else:
        rng.shuffle(words)
    again = Order(task.names, tuple(words))
    return again if _fits(again, split) else task


def _fits(task: Order, split: Split) -> bool:
    """What a held-out task becomes may be of any split; training sees its own alone."""
    there = split != "train" or task.split == split
    return there and task.known and task.answer() is not None
