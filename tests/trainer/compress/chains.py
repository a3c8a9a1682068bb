"""What tests of chains share: a model, a dataset, and specs over them."""

from typing import Any

import pytest

from tests.trainer.compress.world import write_dataset, write_model
from trainer.spec import CompressSpec

HEAL = {"optimization": {"max_steps": 2, "batch_size": 8, "threads": 1, "learning_rate": 1e-3}}


class Events(list[tuple[str, dict[str, Any]]]):
    """What was emitted, in order."""

    def __call__(self, event: str, fields: dict[str, Any]) -> None:
        self.append((event, fields))

    def worked_on(self) -> list[str]:
        """Stages whose method ran, not those found finished."""
        names = [fields["name"] for event, fields in self if event == "phase"]
        return [name.split(": ")[1] for name in names if ": " in name and "measure" not in name]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("inputs")
    return {
        "model": str(write_model(folder / "start")),
        "dataset": str(write_dataset(folder / "data")),
    }


def make_spec(inputs: dict[str, str], *stages: dict[str, Any], **fields: Any) -> CompressSpec:
    return CompressSpec(
        **{**inputs, "threads": 1, "serve_check": False, "stages": stages, **fields}
    )
