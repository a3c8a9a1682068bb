"""Sources that are no JSON Lines; the hub is a FAKE of `datasets.load_dataset`."""

import json
from collections.abc import Iterator
from typing import Any

import datasets
import pytest

from prompts.seeds import SeedError, scan_seeds
from prompts.tables import hub_lines, renamed

pytestmark = pytest.mark.slow  # `datasets` takes a second to import.


class FakeHub:
    """Rows, then an error, if there is one; what it was asked for."""

    def __init__(self, rows: list[dict[str, Any]], error: Exception | None = None) -> None:
        self.rows, self.error = rows, error
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def load(self, name: str, **options: Any) -> Iterator[dict[str, Any]]:
        self.asked.append((name, options))
        return self._streamed()

    def _streamed(self) -> Iterator[dict[str, Any]]:
        yield from self.rows
        if self.error is not None:
            raise self.error


def test_rows_of_the_hub_are_streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = FakeHub([{"question": "1?", "when": {1}}, {"question": "é"}], OSError("the line broke"))
    monkeypatch.setattr(datasets, "load_dataset", hub.load)
    lines = hub_lines("owner/name")
    assert json.loads(next(lines))["question"] == "1?"
    assert json.loads(next(lines)) == {"question": "é"}
    with pytest.raises(SeedError, match="'owner/name' can't be loaded: the line broke"):
        next(lines)
    assert hub.asked == [("owner/name", {"split": "train", "streaming": True})]


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("Dataset scripts are no longer supported, but found name.py"),
        datasets.exceptions.DefunctDatasetError("gone"),
        datasets.exceptions.DatasetNotFoundError("no such dataset"),
        ValueError("Config name is missing"),
        ImportError("to read it install another package"),
    ],
)
def test_what_the_hub_cannot_give_is_a_seeds_error(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(datasets, "load_dataset", FakeHub([], error).load)
    with pytest.raises(SeedError, match="dataset 'name' can't be loaded"):
        list(hub_lines("name"))


def test_a_line_that_is_nested_without_end_is_the_reader_s_to_refuse() -> None:
    line = b'{"a": ' + b"[" * 200_000 + b"]" * 200_000 + b"}\n"
    with pytest.raises(SeedError, match="line 1"):
        list(scan_seeds(renamed([line], {"b": "a"})))


@pytest.mark.parametrize("path", ["b.²", "b.--1", "b." + "9" * 5_000, "b.x", "b.2", "b.-3"])
def test_a_path_that_leads_nowhere_is_named(path: str) -> None:
    with pytest.raises(SeedError, match="columns: there is no"):
        list(renamed([b'{"b": [1, 2]}'], {"c": path}))


def test_places_of_a_list_are_counted_from_either_end() -> None:
    found = [json.loads(line) for line in renamed([b'{"b": [1, 2]}'], {"c": "b.0", "d": "b.-1"})]
    assert found == [{"b": [1, 2], "c": 1, "d": 2}]
