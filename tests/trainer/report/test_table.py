"""The terminal table and the pass rule."""

import pytest

from tests.trainer.report.made_up import made_up_chain
from trainer.measurement import Measurement, wilson
from trainer.report.chain import Chain, ModelRow
from trainer.report.table import summary_table, verdict


def three(base: int, student: int, teacher: int, n: int = 200) -> Chain:
    """A chain of three models measured on one skill."""
    rows = [
        ModelRow(
            id=role,
            label=role,
            role=role,
            measurement=Measurement(
                model=role,
                skills={"cot": wilson(correct, n)},
                parameters=1,
                weight_bytes=1,
                generated_tokens=1,
                seconds=1,
                tokens_per_s=1,
            ),
        )
        for role, correct in (("teacher", teacher), ("base", base), ("student", student))
    ]
    return made_up_chain(models=tuple(rows))


def test_a_student_that_learned_passes_with_its_numbers():
    found = verdict(three(20, 120, 190), "cot")

    assert found.passed
    assert found.gain == pytest.approx(wilson(120, 200).low - 0.1)
    assert found.gap_closed == pytest.approx(100 / 170)
    assert found.sentence.startswith("Passed on cot")


def test_the_lower_end_counts_and_not_the_measured_accuracy():
    # 28.5% is 18.5 points above the base, its interval's lower end 12.7
    found = verdict(three(20, 57, 90), "cot")

    assert found.gap_closed is not None
    assert found.gap_closed >= 0.40
    assert not found.passed
    assert found.sentence.startswith("Failed on cot")


def test_too_small_a_share_of_the_gap_fails():
    found = verdict(three(0, 70, 200), "cot")

    assert found.gain is not None
    assert found.gain >= 0.15
    assert not found.passed


@pytest.mark.parametrize(("min_gain", "min_gap_closed", "passed"), [(0.1, 0.3, True), (0.5, 0.3, False), (0.1, 0.9, False)])  # noqa: E501  # fmt: skip
def test_both_limits_count(min_gain, min_gap_closed, passed):
    assert verdict(three(20, 90, 190), "cot", min_gain, min_gap_closed).passed is passed


def test_a_teacher_no_better_than_the_base_fails_and_says_so():
    found = verdict(three(50, 120, 50), "cot")

    assert not found.passed
    assert found.gap_closed is None
    assert "no gap to close" in found.sentence


def test_an_unmeasured_skill_has_no_verdict():
    found = verdict(three(20, 120, 190), "poetry")

    assert not found.passed
    assert found.sentence == ("No verdict on poetry: not measured for teacher, base, student.")


def test_the_table_has_a_row_for_each_model_and_the_same_titles_in_each():
    chain = made_up_chain()

    rows = summary_table(chain)

    assert [row["model"] for row in rows] == [
        "teacher", "student base", "student", "wanda", "depth (stopped by its gate)", "svd",
        "svd + ptq",
    ]  # fmt: skip
    assert {tuple(row) for row in rows} == {
        ("model", "cot", "icl", "if", "parameters", "bytes", "tokens/s")
    }
    assert rows[0]["cot"] == "95.0% (91.0–97.3)"
    assert rows[0]["bytes"] == "9.63 MB"


def test_an_unmeasured_model_has_dashes():
    chain = made_up_chain()
    bare = ModelRow(id="x", label="x", role="student")

    rows = summary_table(made_up_chain(models=(*chain.models, bare)))

    assert list(rows[-1].values()) == ["x", *["—"] * 6]


def test_models_of_one_name_are_numbered():
    chain = made_up_chain()
    twice = tuple(row.model_copy(update={"label": "ptq"}) for row in chain.models[-2:])

    rows = summary_table(made_up_chain(models=(*chain.models[:3], *twice)))

    assert [row["model"] for row in rows] == ["teacher", "student base", "student", "ptq (1)", "ptq (2)"]  # noqa: E501  # fmt: skip
