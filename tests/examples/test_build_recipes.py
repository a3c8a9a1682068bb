"""The example recipes of builds are specs, and the files that they name are there."""

from pathlib import Path

import pytest

from service.cli.recipes import check_paths, read_recipe
from service.spec import BuildJob, job_spec

RECIPES = sorted(Path("examples/recipes").glob("build-*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_it_is_a_build_whose_files_are_there(path: Path) -> None:
    recipe = read_recipe(path, [])
    check_paths(recipe)
    assert isinstance(job_spec.validate_python(recipe.spec), BuildJob)


def test_there_are_some() -> None:
    assert len(RECIPES) >= 5
