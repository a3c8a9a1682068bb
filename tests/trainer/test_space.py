"""Room on the disk: looked at before a training, and named where it ends."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from safetensors import SafetensorError

from tests.trainer.conftest import make_model, save_model
from tests.trainer.runs import Heard, Killed, dying_after, run, same, sequence_level
from trainer.checkpoint import listing
from trainer.errors import BadInput
from trainer.loading import load_model

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("base"), make_model())


def test_too_little_disk_is_said_before_anything_is_spent(base: Path, tmp_path: Path) -> None:
    heard = Heard()
    with pytest.raises(BadInput, match="too little disk space"):
        run(sequence_level(base, keep_checkpoints=10**13), tmp_path / "out", heard)
    assert not heard.of("step")


def test_a_killed_run_needs_no_room_for_the_checkpoints_it_has(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a disk that holds two checkpoints and one in the making, and no more."""
    spec, out = sequence_level(base), tmp_path / "out"
    undisturbed = run(spec, tmp_path / "undisturbed")
    each = 12 * sum(parameter.numel() for parameter in load_model(base).parameters())
    half = out / "checkpoints/.writing/checkpoint-8/optimizer.pt"

    def usage(path: Path) -> SimpleNamespace:
        held = len(listing(out / "checkpoints")) + half.exists()
        return SimpleNamespace(free=(3 - held) * each)

    with pytest.raises(Killed):
        run(spec, out, dying_after(2))
    half.parent.mkdir(parents=True, exist_ok=True)
    half.write_bytes(b"half")
    monkeypatch.setattr("trainer.space.shutil.disk_usage", usage)
    assert same(undisturbed, run(spec, out))


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        SafetensorError(
            "Error while serializing: I/O error: No space left on device (os error 28)"
        ),
    ],
)
def test_a_disk_that_fills_up_is_named(base: Path, tmp_path: Path, error: Exception) -> None:
    """Fakes, in the libraries' own words: disks here don't fill up."""

    def emit(event: str, fields: dict[str, Any]) -> None:
        if event == "phase" and fields["name"] == "checkpoint":
            raise error

    with pytest.raises(BadInput, match=r"is full.*goes on from the last complete checkpoint"):
        run(sequence_level(base), tmp_path / "out", emit)
