"""In-context tasks: categories stand for nonsense labels, and only the demonstrations say which."""

from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from examples.demo.world.problem import Problem, Split, split_of
from examples.demo.world.words import CATEGORIES, LABELS, NAMES, THINGS

CLASS_COUNTS = (2, 3)


class Form(NamedTuple):
    """How a word and its label are written."""

    before: str
    between: str
    after: str


FORM = Form("Input: ", "\nOutput: ", "\n\n")
TURNS = Form("", "<|end|><|assistant|>", "<|end|><|user|>")
"""A conversation: each word is a turn of the user's, each label one of the assistant's."""
OTHER_FORMS = (
    Form("", " ", "\n"),
    Form("", ": ", "\n"),
    Form("", " -> ", "\n"),
    Form("", "\nOutput: ", "\n"),
    TURNS,
)


@dataclass(frozen=True)
class Mapping:
    """A task: categories and the label that stands for each of them, in the order of the names."""

    categories: tuple[str, ...]
    labels: tuple[str, ...]

    @property
    def name(self) -> str:
        """The canonical content, which also decides the split: `animal=zub+fruit=kiv`."""
        pairs = zip(self.categories, self.labels, strict=True)
        return "+".join(f"{category}={label}" for category, label in pairs)

    def label_of(self, word: str) -> str:
        """The label of a word of one of the categories."""
        pairs = zip(self.categories, self.labels, strict=True)
        return next(label for category, label in pairs if word in CATEGORIES[category])


def draw_mapping(rng: Random, split: Split, classes: int) -> Mapping:
    """A task with `classes` categories out of `split`."""
    while True:
        categories = tuple(sorted(rng.sample(list(CATEGORIES), classes)))
        mapping = Mapping(categories, tuple(rng.sample(LABELS, classes)))
        if split_of(mapping.name) == split:
            return mapping


def draw_icl(rng: Random, split: Split, demonstrations: int, classes: int = 2) -> Problem:
    """A question about a fresh task, which `demonstrations` shots determine (none leave it open).

    The word asked about is not among the demonstrations, but its category is.
    """
    mapping = draw_mapping(rng, split, classes)
    return _ask(mapping, _draw_words(rng, mapping, demonstrations), split)


def draw_narrow_icl(
    rng: Random, split: Split, demonstrations: int, classes: int, words_each: int
) -> Problem:
    """A task over `words_each` words of each category, so that words come back.

    Looking up the very word is easy to learn, and the way to looking up its category.
    """
    mapping = draw_mapping(rng, split, classes)
    pool = [word for c in mapping.categories for word in rng.sample(CATEGORIES[c], words_each)]
    words = rng.choices(pool, k=demonstrations)
    return _ask(mapping, [*words, rng.choice(words)], split)


def draw_repetition(rng: Random, split: Split, words: int) -> Problem:
    """Any `words` words, told twice: all of the second time can be looked up in the first.

    Nothing makes a model learn to look up as fast: every word is a lesson, and nothing else helps.
    """
    told = rng.choices(_all_words(), k=words)
    once = " ".join(told)
    start = len(once) + 1 + len(told[0])
    return Problem(
        skill="icl",
        user=f"{once} {once}",
        completion=told[0],
        answer=told[0],
        split=split,
        seed={"input": once, "output": told[0], "task": "repetition"},
        targets=((start, 2 * len(once) + 1),),
    )


def draw_pairs(rng: Random, split: Split, pairs: int, form: Form = FORM) -> Problem:
    """Pairs of any words in `form`, told twice, the second time in another order."""
    words = rng.sample(_all_words(), 2 * pairs)
    told = list(zip(words[::2], words[1::2], strict=True))
    again = rng.sample(told, pairs)
    query, answer = again.pop()
    return icl_problem([*told, *again], query, answer, split, "pairs", form)


def _all_words() -> list[str]:
    words_of_tasks = (word for members in CATEGORIES.values() for word in members)
    return sorted({*LABELS, *NAMES, *THINGS, *words_of_tasks})


def draw_dictionary(
    rng: Random, split: Split, words: int, demonstrations: int, form: Form = FORM
) -> Problem:
    """Every word has a label of its own and comes back: guessing among the labels hardly pays.

    With two classes a model settles for any label that was shown; here it has to match.
    """
    pool = rng.sample([word for members in CATEGORIES.values() for word in members], words)
    labels = dict(zip(pool, rng.sample(LABELS, words), strict=True))
    drawn = rng.choices(pool, k=demonstrations)
    query = rng.choice(drawn)
    labelled = [(word, labels[word]) for word in drawn]
    return icl_problem(labelled, query, labels[query], split, "dictionary", form)


def draw_kind(rng: Random, split: Split) -> Problem:
    """The category of a word, asked outright."""
    category = rng.choice(list(CATEGORIES))
    word = rng.choice(CATEGORIES[category])
    return Problem(
        skill="icl",
        user=f"What kind of word is {word}?",
        completion=category,
        answer=category,
        split=split,
        seed={"input": word, "output": category, "task": "kind"},
    )


def _ask(mapping: Mapping, words: list[str], split: Split) -> Problem:
    labelled = [(word, mapping.label_of(word)) for word in words]
    query, answer = labelled.pop()
    return icl_problem(labelled, query, answer, split, mapping.name)


def _draw_words(rng: Random, mapping: Mapping, demonstrations: int) -> list[str]:
    """Different words; the last one, the query, shares its category with an earlier one."""
    pool = [(category, word) for category in mapping.categories for word in CATEGORIES[category]]
    while True:
        drawn = rng.sample(pool, demonstrations + 1)
        shown = {category for category, _ in drawn[:-1]}
        if not demonstrations or drawn[-1][0] in shown:
            return [word for _, word in drawn]


def icl_problem(
    labelled: list[tuple[str, str]],
    query: str,
    answer: str,
    split: Split,
    task: str,
    form: Form = FORM,
) -> Problem:
    """The prompt of labelled (word, label) demonstrations and a query, with its loss targets."""
    user, targets, seen = "", [], set()
    for word, label in labelled:
        user += f"{form.before}{word}{form.between}"
        if label in seen:
            start = len(user.rstrip(" "))  # A word takes the space before it along.
            targets.append((start, len(user) + len(label)))
        seen.add(label)
        user += f"{label}{form.after}"
    user += f"{form.before}{query}" + ("" if form is TURNS else form.between.rstrip(" "))
    return Problem(
        skill="icl",
        user=user,
        completion=answer,
        answer=answer,
        split=split,
        seed={"input": query, "output": answer, "task": task},
        targets=tuple(targets),
    )
