"""Answers are exact, splits are disjoint, and the same seed tells the same world."""

import re
from collections.abc import Callable
from random import Random

import pytest

from examples.demo import world
from examples.demo.heldout import SETS, heldout
from examples.demo.world.instructions import OPERATIONS
from examples.demo.world.words import CATEGORIES


def test_every_written_step_of_a_story_is_true_and_continues_the_last_one() -> None:
    rng = Random(1)
    for index in range(2000):
        steps = 1 + index % 4
        story = world.draw_story(rng, "train", steps, distractors=index % 3)
        *notes, closing = story.completion.rstrip(".").split(". ")
        equations = [note.split(", ")[1] for note in notes if "," in note]
        value = None
        for left, symbol, right, result in map(parse_equation, equations):
            if value is not None:
                assert value in (left, right)
            value = result
            assert value == {"+": left + right, "-": left - right, "*": left * right}[symbol]
            assert 0 <= value <= 99
        assert len(equations) == steps
        assert closing == f"The answer is {value}"
        assert story.answer == str(value)


def test_each_number_is_noted_with_what_it_counts_in_the_order_of_the_story() -> None:
    rng = Random(9)
    for index in range(2000):
        story = world.draw_story(rng, "train", 1 + index % 4, distractors=index % 3)
        *notes, _ = story.completion.rstrip(".").split(". ")
        noted = [note.split(", ")[0] for note in notes]
        assert all(f" {words}" in story.seed["question"] for words in noted)
        numbers = re.findall(r"\d+|twice", story.seed["question"])
        assert re.findall(r"\d+|twice", " ".join(noted)) == numbers


def test_the_sentences_of_a_story_give_its_answer() -> None:
    rng = Random(2)
    for index in range(2000):
        story = world.draw_story(rng, "train", 1 + index % 4, distractors=index % 3)
        assert solve(story.seed["question"]) == int(story.answer), story.user


def test_direct_answers_are_the_same_without_the_steps() -> None:
    story = world.draw_story(Random(3), "train", 3, direct=True)
    assert story.user.endswith(" Answer directly.")
    assert story.completion == f"The answer is {story.answer}."


def test_a_task_is_determined_by_its_demonstrations() -> None:
    rng = Random(4)
    for index in range(500):
        problem = world.draw_icl(rng, "train", 4, 2 + index % 2)
        shown = dict(re.findall(r"Input: (\w+)\nOutput: (\w+)", problem.user))
        query = re.findall(r"Input: (\w+)", problem.user)[-1]
        same = {label for word, label in shown.items() if category(word) == category(query)}
        assert same == {problem.answer}
        assert query not in shown


def test_rows_whose_words_come_back_can_be_looked_up() -> None:
    rng = Random(10)
    for _ in range(300):
        problem = world.draw_dictionary(rng, "train", 4, 8)
        shown = dict(re.findall(r"Input: (\w+)\nOutput: (\w+)", problem.user))
        assert shown[re.findall(r"Input: (\w+)", problem.user)[-1]] == problem.answer
        assert len(set(shown.values())) == len(shown)


def test_a_repetition_is_told_twice_and_only_the_second_time_counts() -> None:
    problem = world.draw_repetition(Random(12), "train", 9)
    words = problem.user.split()
    start, stop = problem.targets[0]
    assert words[:9] == words[9:]
    assert problem.answer == words[0]
    assert problem.user[start:stop] == " " + " ".join(words[10:])
    assert stop == len(problem.user)


@pytest.mark.parametrize("form", [world.FORM, *world.OTHER_FORMS])
def test_pairs_are_told_twice_in_every_form(form: world.Form) -> None:
    problem = world.draw_pairs(Random(13), "train", 6, form)
    before, between, after = map(re.escape, form)
    pairs = re.findall(rf"{before}(\w+){between}(\w+){after}", problem.user)
    assert len(pairs) == 11
    assert set(pairs[6:]) < set(pairs[:6])
    (query,) = set(dict(pairs[:6])) - set(dict(pairs[6:]))
    assert problem.user.endswith(
        f"{form.before}{query}" + ("" if form is world.TURNS else form.between.rstrip())
    )
    assert dict(pairs[:6])[query] == problem.answer
    counted = [problem.user[start:stop].strip() for start, stop in problem.targets]
    assert counted == [label for _, label in pairs[6:]]


def test_kinds_are_the_categories_of_tasks() -> None:
    problem = world.draw_kind(Random(11), "train")
    assert problem.answer == category(problem.user.removesuffix("?").split()[-1])


def test_loss_targets_of_a_task_are_outputs_already_determined() -> None:
    problem = world.draw_icl(Random(5), "train", 8, 2)
    labels = re.findall(r"Output:( \w+)", problem.user)
    repeated = [label for i, label in enumerate(labels) if label in labels[:i]]
    assert [problem.user[start:stop] for start, stop in problem.targets] == repeated


def test_instructions_do_what_they_say() -> None:
    rng = Random(6)
    for index in range(2000):
        problem = world.draw_instruction(rng, "train", 1 + index % 3)
        first, *later = problem.user.removesuffix(".").split(". Then ")
        asked, words = first.split(": ")
        lines = [follow(asked.lower(), words.split())]
        for sentence in later:
            lines.append(follow(sentence, lines[-1]))
        assert problem.completion == "\n".join(" ".join(line) for line in lines)
        assert problem.answer == " ".join(lines[-1])


def test_heldout_compositions_are_never_drawn_for_training() -> None:
    rng = Random(7)
    heldout_pairs = {
        pair_of(world.draw_instruction(rng, "heldout", 2, heldout_pairs=True)) for _ in range(2000)
    }
    train_pairs = {pair_of(world.draw_instruction(rng, "train", 2)) for _ in range(4000)}
    assert len(heldout_pairs) > 20
    assert not heldout_pairs & train_pairs
    # Every operation is still seen in first and in second place.
    assert len({first for first, _ in train_pairs}) == len(OPERATIONS)
    assert len({second for _, second in train_pairs}) == len(OPERATIONS)


@pytest.mark.parametrize("split", ["train", "seed", "heldout"])
def test_content_decides_the_split(split: world.Split) -> None:
    rng = Random(8)
    for _ in range(200):
        story = world.draw_story(rng, split, 2, direct=rng.random() < 0.5)
        assert world.split_of(story.seed["question"]) == split
        task = world.draw_icl(rng, split, 4)
        assert world.split_of(task.seed["task"]) == split


def test_both_modes_of_a_story_share_its_split() -> None:
    story = world.draw_story(Random(9), "heldout", 2)
    direct = world.draw_story(Random(9), "heldout", 2, direct=True)
    assert story.seed == direct.seed


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_heldout_sets_are_the_same_in_every_run_and_without_repeats(name: str) -> None:
    problems = heldout(name, 60)
    assert problems == heldout(name, 60)
    assert len({problem.id for problem in problems}) == 60
    assert {problem.split for problem in problems} == {"heldout"}


def parse_equation(text: str) -> tuple[int, str, int, int]:
    match = re.fullmatch(r"(\d+)([-+*])(\d+)=(\d+)", text)
    assert match is not None, text
    return int(match[1]), match[2], int(match[3]), int(match[4])


def category(word: str) -> str:
    return next(name for name, words in CATEGORIES.items() if word in words)


def pair_of(problem: world.Problem) -> tuple[str, str]:
    first, second = problem.user.removesuffix(".").split(". Then ")
    spoken = {operation.first: name for name, operation in OPERATIONS.items()}
    later = {operation.later: name for name, operation in OPERATIONS.items()}
    return spoken[first.split(":")[0]], later[second]


def solve(question: str) -> int:
    """Work a story out sentence by sentence, by who has how many of what."""
    *told, asked = re.split(r"(?<=[.?]) ", question)
    holdings: dict[tuple[str, str], int] = {}
    for sentence in told:
        tell(sentence, holdings)
    if match := re.search(r"many (\w+) do (\w+) and (\w+) have together", asked):
        return holdings[match[2], match[1]] + holdings[match[3], match[1]]
    match = re.search(r"many (\w+) does (\w+) have", asked) or re.search(
        r"number of (\w+) that (\w+) has", asked
    )
    assert match is not None, asked
    return holdings[match[2], match[1]]


def tell(sentence: str, holdings: dict[tuple[str, str], int]) -> None:
    """Book one sentence; what it takes from or gives to people with unknown holdings is ignored."""
    sentence = sentence.removeprefix("Then ")
    for pattern, book in BOOKINGS:
        if match := re.fullmatch(pattern, sentence):
            for key, amount in book(*match.groups()):
                owner, thing, source, factor = key
                base = holdings.get((source, thing)) if source else 0
                if base is not None:
                    holdings[owner, thing] = base * factor + amount
            return


Booking = list[tuple[tuple[str, str, str, int], int]]


def change(owner: str, thing: str, amount: int) -> Booking:
    return [((owner, thing, owner, 1), amount)]


BOOKINGS: list[tuple[str, Callable[..., Booking]]] = [
    (
        r"(\w+) (?:has|starts with|also has) (\d+) (\w+)\.",
        lambda a, n, t: [((a, t, "", 1), int(n))],
    ),
    (r"There are (\d+) (\w+) on the table of (\w+)\.", lambda n, t, a: [((a, t, "", 1), int(n))]),
    (
        r"(\w+) has (\d+) \w+ with (\d+) (\w+) in each of them\.",
        lambda a, n, m, t: [((a, t, "", 1), int(n) * int(m))],
    ),
    (r"(\w+) buys (\d+) more (\w+)\.", lambda a, n, t: change(a, t, int(n))),
    (r"(\w+) finds (\d+) (\w+) in the \w+\.", lambda a, n, t: change(a, t, int(n))),
    (r"(\w+) gets (\d+) (\w+) from \w+\.", lambda a, n, t: change(a, t, int(n))),
    (r"\w+ gives (\w+) (\d+) (\w+)\.", lambda a, n, t: change(a, t, int(n))),
    (r"(\w+) gives (\d+) (\w+) to \w+\.", lambda a, n, t: change(a, t, -int(n))),
    (r"(\w+) loses (\d+) (\w+) in the \w+\.", lambda a, n, t: change(a, t, -int(n))),
    (r"(\w+) sells (\d+) (\w+)\.", lambda a, n, t: change(a, t, -int(n))),
    (r"\w+ takes (\d+) (\w+) from (\w+)\.", lambda n, t, a: change(a, t, -int(n))),
    (r"(\w+) has (\d+) more (\w+) than (\w+)\.", lambda a, n, t, b: [((a, t, b, 1), int(n))]),
    (r"(\w+) has (\d+) fewer (\w+) than (\w+)\.", lambda a, n, t, b: [((a, t, b, 1), -int(n))]),
    (r"(\w+) has twice as many (\w+) as (\w+)\.", lambda a, t, b: [((a, t, b, 2), 0)]),
]


def follow(order: str, words: list[str]) -> list[str]:
    """Carry out one spoken order; written apart from the generator on purpose."""
    if "sort" in order:
        return sorted(words, key=lambda word: word.casefold())
    if "reverse" in order:
        return list(reversed(words))
    if "move the first" in order:
        return words[1:] + words[:1]
    if "swap the first two" in order:
        return words[1::-1] + words[2:]
    if "swap" in order:
        return words[-1:] + words[1:-1] + words[:1]
    if "keep" in order:
        return words[:2] if "first" in order else words[-2:]
    place = {"first": 0, "second": 1, "last": len(words) - 1}
    index = next(place[name] for name in place if f"the {name}" in order)
    if "drop" in order:
        return words[:index] + words[index + 1 :]
    assert "upper-case" in order
    return [word.upper() if i == index else word for i, word in enumerate(words)]
