import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prompts.likeness import Likest, RougeIndex, rouge_l


@pytest.mark.parametrize(
    ("first", "second", "score"),
    [
        ("the cat sat", "the cat sat", 1.0),
        ("The cat, sat!", "the CAT sat", 1.0),
        ("a b c d", "b d x", 4 / 7),
        ("a b", "b a", 0.5),
        ("a b", "c d", 0.0),
        ("", "", 0.0),
    ],
)
def test_the_score_by_hand(first: str, second: str, score: float) -> None:
    assert rouge_l(first, second) == pytest.approx(score)


texts = st.lists(st.sampled_from("abcdefgh"), max_size=9).map(" ".join)


@settings(max_examples=150, deadline=None)
@given(st.lists(texts, max_size=12), texts, st.sampled_from([0.3, 0.5, 0.7, 0.9, 1.0]))
def test_the_verdict_equals_comparing_with_every_text(
    pool: list[str], text: str, limit: float
) -> None:
    assert indexed(pool).likest(text, limit) == brute_force(pool, text, limit)


def test_a_word_that_stands_there_very_often_is_counted_in_full() -> None:
    pool = ["yes " * 400, "yes " * 300 + "no"]
    for count in (290, 300, 400):
        text = "yes " * count
        assert indexed(pool).likest(text, 0.5) == brute_force(pool, text, 0.5)


def test_words_that_no_text_holds_still_count_against_likeness() -> None:
    index = indexed(["a b c d"])
    assert index.likest("a b c d x x x x", 0.7) is None
    assert index.likest("a b c d x", 0.7) == Likest("0", 8 / 9)
    assert index.likest("x y x y", 0.1) is None


@pytest.mark.slow
def test_a_large_pool_of_similar_sentences() -> None:
    generator = random.Random(0)
    nouns = [f"noun{n}" for n in range(40)]
    sentences = [
        " ".join(["give", "the", *generator.choices(nouns, k=generator.randint(2, 9))])
        for _ in range(2000)
    ]
    index = indexed(sentences[:1900])
    assert len(index) == 1900
    for text in sentences[1900:]:
        assert index.likest(text, 0.7) == brute_force(sentences[:1900], text, 0.7)


def indexed(pool: list[str]) -> RougeIndex:
    index = RougeIndex()
    for number, text in enumerate(pool):
        index.add(str(number), text)
    return index


def brute_force(pool: list[str], text: str, limit: float) -> Likest | None:
    scores = [rouge_l(text, other) for other in pool]
    best = max(scores, default=0.0)
    return Likest(str(scores.index(best)), best) if scores and best >= limit else None
