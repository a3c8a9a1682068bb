"""Where a training writes."""

import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.conftest import make_model, save_model
from tests.trainer.runs import Heard, run, same, sequence_level
from trainer.errors import Lost
from trainer.place import claimed


def test_a_training_that_is_being_ended_is_waited_for(tmp_path: Path) -> None:
    ending, heard = claimed(tmp_path, Heard()), Heard()
    ending.__enter__()
    end = threading.Timer(0.2, ending.__exit__, (None, None, None))
    end.start()
    with claimed(tmp_path, heard):
        assert not end.is_alive() or end.finished.is_set()
    assert [phase["name"] for phase in heard.of("phase")] == ["wait"]


@pytest.mark.slow
def test_two_trainings_never_write_into_one_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.place.PATIENCE_S", 0.0)
    base = save_model(tmp_path / "base", make_model())
    undisturbed = run(sequence_level(base), tmp_path / "undisturbed")

    def emit(event: str, fields: dict[str, Any]) -> None:
        if event == "step" and fields["step"] == 1:
            with pytest.raises(Lost, match="another process trains in"):
                run(sequence_level(base), tmp_path / "out")

    assert same(undisturbed, run(sequence_level(base), tmp_path / "out", emit))
    shutil.rmtree(tmp_path / "out/model")
    assert same(undisturbed, run(sequence_level(base), tmp_path / "out"))
