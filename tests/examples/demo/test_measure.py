"""Grading and intervals."""

from random import Random

import pytest

from examples.demo import world
from examples.demo.answers import is_right
from examples.demo.measure import Figure, table


def test_wilson_interval_matches_a_value_computed_by_hand() -> None:
    # n=10, p=0.8, z=1.96: centre (0.8 + 0.19208) / 1.38416, half-width 0.22664.
    low, high = Figure(right=8, asked=10).interval()
    assert low == pytest.approx(0.4902, abs=1e-4)
    assert high == pytest.approx(0.9433, abs=1e-4)


def test_intervals_stay_within_zero_and_one() -> None:
    assert Figure(0, 50).interval()[0] == 0.0
    assert Figure(50, 50).interval()[1] == 1.0


def test_only_the_closing_sentence_of_a_story_counts() -> None:
    story = world.draw_story(Random(0), "heldout", 2)
    assert is_right(story, story.completion)
    assert is_right(story, f" The answer is {story.answer}. ")
    assert not is_right(story, f"The answer is {story.answer}. The answer is 100.")
    assert not is_right(story, story.answer)


def test_only_the_last_line_of_an_instruction_counts() -> None:
    problem = world.draw_instruction(Random(0), "heldout", 2)
    assert is_right(problem, problem.completion)
    assert is_right(problem, problem.answer)
    assert not is_right(problem, f"{problem.answer}\nfig")


def test_the_table_names_the_set_and_its_interval() -> None:
    assert "(`icl`) | 45 | 50 | 90.0% | 78.6% to 95.7% |" in table({"icl": Figure(45, 50)})
