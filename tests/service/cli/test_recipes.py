"""Recipe files: which of their values are paths."""

from pathlib import Path

import httpx
import pytest

from service.cli.client import Api
from service.cli.failure import Failure
from service.cli.recipes import MODEL_FIELDS, check_paths, read_recipe, send_files

RECIPE = """
kind: recipe
train: {method: forward_kl, student: ./student, teacher: ./teacher, dataset: d}
compress: {model: ./made, teacher: ./other, stages: [{kind: depth}]}
"""


def test_models_are_named_from_the_recipes_folder(tmp_path: Path) -> None:
    """Those to be compared with, too; what isn't there is refused before anything is sent."""
    (tmp_path / "recipe.yaml").write_text(RECIPE, "utf-8")
    recipe = read_recipe(tmp_path / "recipe.yaml", [])
    api = Api("http://nowhere", httpx.MockTransport(lambda request: httpx.Response(500)))
    named = {"train": ("student", "teacher"), "compress": ("model", "teacher")}
    with pytest.raises(Failure) as refused:
        check_paths(recipe)
    lacking = {f"{part}.{field}" for part, fields in named.items() for field in fields}
    assert lacking <= set(MODEL_FIELDS)
    assert {one["location"] for one in refused.value.document["errors"]} == lacking
    for name in ("student", "teacher", "made", "other"):
        (tmp_path / name).mkdir()
    check_paths(recipe)
    sent = send_files(recipe, api, print)
    assert sent["compress"]["teacher"] == str(tmp_path / "other")
    assert sent["train"]["teacher"] == str(tmp_path / "teacher")
