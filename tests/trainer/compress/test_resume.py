"""Finished stages and those that were interrupted: what is kept, what is made again."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.compress.chains import HEAL, Events, inputs, make_spec
from trainer.compress.chain import run
from trainer.compress.report import StageReport
from trainer.events import silent
from trainer.loading import load_model

pytestmark = pytest.mark.slow

__all__ = ["inputs"]


def test_finished_stages_are_skipped_and_changed_ones_redone(
    inputs: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first = run(make_spec(inputs, {"kind": "depth"}, {"kind": "wanda"}), out, silent)
    events = Events()
    assert run(make_spec(inputs, {"kind": "depth"}, {"kind": "wanda"}), out, events) == first
    assert events.worked_on() == []
    changed = make_spec(inputs, {"kind": "depth"}, {"kind": "wanda", "sparsity": 0.7})
    run(changed, out, events := Events())
    assert events.worked_on() == ["wanda"]
    other = make_spec(inputs, {"kind": "depth", "layers": 2}, {"kind": "wanda", "sparsity": 0.7})
    run(other, out, events := Events())
    assert events.worked_on() == ["depth", "wanda"]  # what follows has another source
    (out / "stage-1-wanda" / "report.json").write_text("{", "utf-8")
    run(other, out, events := Events())
    assert events.worked_on() == ["wanda"]


def test_finished_stages_may_be_moved(
    inputs: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the model that they start from; and be named from another directory."""
    old, new = tmp_path / "old", tmp_path / "new"
    shutil.copytree(inputs["model"], old / "start")
    before = make_spec(
        {**inputs, "model": str(old / "start")}, {"kind": "depth"}, {"kind": "wanda"}
    )
    run(before, old / "out", silent)
    old.rename(new)
    given = {**inputs, "model": str(new / "start")}
    again = make_spec(given, {"kind": "depth"}, {"kind": "wanda"})
    check_places(run(again, new / "out", events := Events()), new / "start", new / "out")
    assert events.worked_on() == []
    other = make_spec(given, {"kind": "depth"}, {"kind": "magnitude"})
    check_places(run(other, new / "out", events := Events()), new / "start", new / "out")
    assert events.worked_on() == ["magnitude"]
    for there, out in ((new, Path("out")), (tmp_path, Path("new/out"))):
        monkeypatch.chdir(there)
        check_places(run(again, out, silent), new / "start", out)


def check_places(reports: list[StageReport], start: Path, out: Path) -> None:
    """Each says where things are now, on disk too."""
    source = start
    for report in reports:
        assert report.source == report.before.path == str(source)
        source = out / f"stage-{report.index}-{report.kind}/model"
        assert report.model == report.after.path == str(source)
        stored = (source.parent / "report.json").read_text("utf-8")
        assert StageReport.model_validate_json(stored) == report


def test_what_is_cleared_away_counts_as_finished_no_more(
    inputs: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while another stage clears its place: the report goes before what it speaks of."""

    class KilledError(Exception):
        pass

    def by_name(directory: Path) -> Iterator[Path]:
        return iter([directory / name for name in sorted(os.listdir(directory))])

    def killed(path: Path, **given: Any) -> None:
        if path.name == "model":
            (path / "model.safetensors").unlink()
            raise KilledError
        remove(path, **given)

    asked, remove = make_spec(inputs, {"kind": "magnitude"}, answer_rows=0), shutil.rmtree
    first = run(asked, tmp_path, silent)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "iterdir", by_name)
        patched.setattr(shutil, "rmtree", killed)
        with pytest.raises(KilledError):
            run(make_spec(inputs, {"kind": "magnitude", "sparsity": 0.7}), tmp_path, silent)
    (again,) = run(asked, tmp_path, events := Events())
    assert events.worked_on() == ["magnitude"]
    assert again.after == first[0].after
    load_model(again.model)


def test_a_stage_that_lost_weights_is_made_again(inputs: dict[str, str], tmp_path: Path) -> None:
    spec = make_spec(inputs, {"kind": "magnitude"})
    (report,) = run(spec, tmp_path, silent)
    for spoil in (Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-1])):
        spoil(Path(report.model) / "model.safetensors")
        run(spec, tmp_path, events := Events())
        assert events.worked_on() == ["magnitude"]
        load_model(report.model)


@pytest.mark.parametrize("name", ["chat_template.jinja", "tokenizer.json"])
def test_what_stands_beside_the_weights_makes_another_model(
    name: str, inputs: dict[str, str], tmp_path: Path
) -> None:
    """And is taken over; what speaks of the making alone does not."""
    start = Path(shutil.copytree(inputs["model"], tmp_path / "start"))
    spec = make_spec({**inputs, "model": str(start)}, {"kind": "magnitude"}, {"kind": "svd"})
    run(spec, tmp_path / "out", silent)
    (start / "README.md").write_text("another card", "utf-8")
    run(spec, tmp_path / "out", events := Events())
    assert events.worked_on() == []
    beside = start / name
    beside.write_bytes(beside.read_bytes() + b"\n")
    made, _ = run(spec, tmp_path / "out", events := Events())
    assert events.worked_on() == ["magnitude", "svd"]
    assert (Path(made.model) / name).read_bytes() == beside.read_bytes()


def test_what_an_interrupted_stage_made_is_kept(inputs: dict[str, str], tmp_path: Path) -> None:
    """Ended while it heals: the method isn't run again, the training goes on."""

    class HealInterruptedError(Exception):
        pass

    def interrupt(event: str, fields: dict[str, Any]) -> None:
        if event == "phase" and fields["name"] == "train":
            raise HealInterruptedError

    spec = make_spec(inputs, {"kind": "wanda", "heal": HEAL})
    with pytest.raises(HealInterruptedError):
        run(spec, tmp_path, interrupt)
    made = tmp_path / "stage-0-wanda" / "made"
    written = (made / "model.safetensors").stat().st_mtime_ns
    assert not (tmp_path / "stage-0-wanda" / "report.json").exists()
    times = []

    def watch(event: str, fields: dict[str, Any]) -> None:
        if event == "phase" and fields["name"] == "heal":
            times.append((made / "model.safetensors").stat().st_mtime_ns)

    (report,) = run(spec, tmp_path, watch)
    assert times == [written]
    assert report.details["sparsity"] == pytest.approx(0.5)
