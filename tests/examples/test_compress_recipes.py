"""The compression recipes parse, and between them name every kind of stage."""

import typing
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from trainer.recipe import Recipe, read_spec
from trainer.spec import StageSpec

RECIPES = sorted(Path("examples/recipes").glob("compress-*.yaml"))


def read(path: Path) -> Recipe:
    recipe: Recipe = read_spec(path, TypeAdapter(Recipe))
    return recipe


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_parses(path: Path) -> None:
    recipe = read(path)
    assert recipe.compress is not None
    assert recipe.compress.model == "./student"


def test_a_bare_on_in_yaml_is_the_field() -> None:
    (masks,) = (read(path) for path in RECIPES if path.stem == "compress-masks")
    assert {stage.on for stage in (masks.compress or fail()).stages} == {"start"}


def test_every_kind_of_stage_is_shown() -> None:
    kinds = {typing.get_args(m.model_fields["kind"].annotation)[0] for m in members()}
    shown = {stage.kind for path in RECIPES for stage in (read(path).compress or fail()).stages}
    assert shown == kinds


def members() -> tuple[typing.Any, ...]:
    return typing.get_args(typing.get_args(StageSpec)[0])


def fail() -> typing.NoReturn:
    raise AssertionError("a recipe without a compression")
