"""Fronts and knees, on points whose answer is plain to see."""

import pytest

from tests.trainer.report.made_up import measured, stage
from trainer.compress.report import StageReport
from trainer.report.chain import Chain, ModelRow, Recipe
from trainer.report.derive import derive
from trainer.report.page import html, markdown
from trainer.report.plots import all_plots
from trainer.report.sweeps import KL, SweptModel, find_knee, make_sweep


def models(*points: tuple[int, float]) -> list[SweptModel]:
    return [
        SweptModel(id=f"m{i}", label=f"svd 0.{i}", ratio=i / 10, weight_bytes=size, quality=quality)
        for i, (size, quality) in enumerate(points, start=1)
    ]


def test_the_front_is_what_nothing_beats() -> None:
    made = make_sweep("svd", "parameter_ratio", KL, models((10, 0.2), (20, 0.6), (30, 0.5)))
    assert [one.on_front for one in made.models] == [True, True, False]
    equal = make_sweep("svd", "parameter_ratio", KL, models((10, 0.2), (10, 0.2), (20, 0.1)))
    assert [one.on_front for one in equal.models] == [True, True, False]


def test_the_knee_is_furthest_above_the_line_between_the_ends() -> None:
    knee = find_knee(models((0, 0.0), (20, 0.5), (50, 0.9), (100, 1.0)))
    assert knee is not None
    assert knee.label == "svd 0.3"  # 0.9 - 0.5 against 0.5 - 0.2
    assert find_knee(models((0, 0.0), (50, 0.5), (100, 1.0))) is None  # a straight line
    assert find_knee(models((0, 0.0), (50, 0.2), (100, 1.0))) is None  # bent the other way
    assert find_knee(models((0, 0.0), (100, 1.0))) is None
    assert find_knee(models((5, 1.0), (5, 1.0), (5, 1.0))) is None


def chain(points: list[tuple[float, int, int]], kind: str, asked: bool = True) -> Chain:
    """(ratio, right answers of 200, bytes) of a swept stage."""
    rows = []
    for index, (ratio, right, size) in enumerate(points):
        after = measured(right, right, right, 1000, size, 50.0)
        sweep = {"stage": 0, "field": "parameter_ratio", "ratio": ratio}
        given = stage(index, kind, after, sweep=sweep)
        if not asked:
            facts = {**given["after"], "measurement": None, "kl_from_start": 1.0 - right / 200}
            given = {**given, "after": facts}
        report = StageReport.model_validate(given)
        rows.append(ModelRow(id=f"s{index}", label=report.label, role="stage", stage=report))
    return Chain(id="c", recipe=Recipe(name="r"), models=tuple(rows))


POINTS = [(0.2, 20, 1000), (0.4, 150, 1500), (0.6, 160, 3000)]


@pytest.mark.slow
def test_the_report_draws_the_sweep_and_names_the_knee() -> None:
    for asked in (True, False):
        given = chain(POINTS, "svd", asked)
        derived = derive(given)
        (sweep,) = derived.sweeps
        assert sweep.knee == "svd 0.4"
        plots = all_plots(given, derived)
        (plot,) = (plot for plot in plots if plot.name == "sweep-0")
        assert "0.4 (knee)" in plot.svg
        for page in (html(given, derived, plots), markdown(given, derived, plots)):
            assert "The knee is svd 0.4" in page
        stages = html(given, derived, plots).split('id="stages"')[1].split('id="dataset"')[0]
        assert "Sweep of svd" in stages


def test_masks_take_the_same_bytes_and_the_report_says_so() -> None:
    (sweep,) = derive(chain([(0.2, 160, 900), (0.4, 100, 900)], "wanda")).sweeps
    assert sweep.knee is None
    assert "since zeros are stored" in sweep.sentence


def test_other_sweeps_of_the_same_bytes_say_their_own_reason() -> None:
    (folded,) = derive(chain([(0.2, 160, 900), (0.4, 100, 900)], "tensor")).sweeps
    assert "since factors are stored multiplied out" in folded.sentence
    assert "zeros" not in folded.sentence
    (factors,) = derive(chain([(0.39, 160, 900), (0.4, 100, 900)], "svd")).sweeps
    assert "all ratios take 900 B; svd 0.39 is best" in factors.sentence


def test_ratios_of_the_same_bytes_and_quality_are_level() -> None:
    points = [(0.2, 160, 900), (0.4, 160, 900), (0.6, 100, 900)]
    (sweep,) = derive(chain(points, "wanda")).sweeps
    assert sweep.sentence.endswith("; wanda 0.2, wanda 0.4 are level at 80.0%, none is best.")
    (distance,) = derive(chain(points, "wanda", asked=False)).sweeps
    assert "wanda 0.2, wanda 0.4 are level at KL 0.2" in distance.sentence


def broken(given: Chain, *places: int) -> Chain:
    """The models there with outputs that are not finite, as their reports tell it."""
    rows = list(given.models)
    for place in places:
        stage = rows[place].stage
        assert stage is not None
        after = stage.after.model_copy(update={"kl_from_start": float("nan")})
        lost = stage.model_copy(
            update={"after": after, "kl_from_source": float("nan"), "passed": False}
        )
        read = StageReport.model_validate_json(lost.model_dump_json())
        rows[place] = rows[place].model_copy(update={"stage": read})
    return given.model_copy(update={"models": tuple(rows)})


@pytest.mark.parametrize("asked", [True, False])
def test_a_ratio_whose_outputs_are_not_finite_is_on_no_front_and_is_named(asked: bool) -> None:
    """By its bytes alone the smallest would be on it."""
    given = broken(chain(POINTS, "svd", asked), 0)
    derived = derive(given)
    (sweep,) = derived.sweeps
    assert [one.on_front for one in sweep.models] == [False, True, True]
    assert "svd 0.2 is no candidate: its outputs are not finite" in sweep.sentence
    (plot,) = (plot for plot in all_plots(given, derived) if plot.name == "sweep-0")
    assert "svd 0.2 not finite in 1 kB" in plot.alt


def test_a_sweep_of_which_nothing_is_finite_says_so_and_is_not_drawn() -> None:
    given = broken(chain(POINTS, "svd", asked=False), 0, 1, 2)
    derived = derive(given)
    (sweep,) = derived.sweeps
    assert not any(one.on_front for one in sweep.models)
    assert "nothing to choose from" in sweep.sentence
    assert not [plot for plot in all_plots(given, derived) if plot.name == "sweep-0"]
    masks = broken(chain([(0.2, 9, 900), (0.4, 9, 900)], "wanda", asked=False), 0, 1)
    assert "nothing to choose from" in derive(masks).sweeps[0].sentence


def test_a_chain_without_sweeps_has_none() -> None:
    given = chain(POINTS, "svd")
    plain = [
        row.model_copy(update={"stage": row.stage and row.stage.model_copy(update={"sweep": None})})
        for row in given.models
    ]
    assert derive(given.model_copy(update={"models": tuple(plain)})).sweeps == ()
