"""Best weights: whole, and loaded where there is room."""

from pathlib import Path

import pytest
import torch

from trainer.best import load_best, save_best


def test_best_weights_are_whole_where_half_of_them_had_been_written(tmp_path: Path) -> None:
    """By a process that died once it had sealed them, before they were renamed."""
    half = tmp_path / ".writing/best-3"
    half.mkdir(parents=True)
    (half / "weights.pt").write_bytes(b"half")
    (half / "manifest.json").write_text("{}")
    save_best(tmp_path, 3, {"w": torch.ones(2)}, "d")
    found = load_best(tmp_path, 3, "d")
    assert not isinstance(found, str), found
    assert torch.equal(found["w"], torch.ones(2))


def test_the_best_weights_of_a_gpu_are_loaded_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second copy of all of them would stand there beside the optimizer's moments."""
    with monkeypatch.context() as patched:
        patched.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
        save_best(tmp_path, 3, {"weight": torch.ones(2)}, "d")
    found = load_best(tmp_path, 3, "d")
    assert not isinstance(found, str)
    assert found["weight"].device.type == "cpu"
    assert found["weight"].tolist() == [1, 1]
