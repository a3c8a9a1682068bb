"""Where a training leaves the finite numbers: what is kept, and what is told."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainer.conftest import make_records
from tests.trainer.methods.made import spec_of
from trainer.checkpoint import listing, newest, problem
from trainer.diagnosis import FOR_STEPS, diverged, ran_away
from trainer.errors import Diverged
from trainer.events import silent
from trainer.history import History
from trainer.training import train_on

WILD = {"learning_rate": 3e38, "warmup_ratio": 0.0, "weight_decay": 10.0}
"""Loss and gradient of a step are finite, what AdamW makes of them isn't."""


def finite(checkpoint: Path) -> bool:
    state = torch.load(checkpoint / "pytorch_model.bin", weights_only=True)
    return all(bool(torch.isfinite(tensor).all()) for tensor in state.values())


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 4])
def test_weights_that_are_no_numbers_are_never_kept(tmp_path: Path, steps: int) -> None:
    """Neither as a checkpoint nor, after the last step, as the student."""
    options: dict[str, Any] = {**WILD, "max_steps": steps, "checkpoint_steps": 1}
    spec = spec_of(tmp_path, "sequence_level", optimization=options)
    with pytest.raises(Diverged, match="diverged at step 1: The weights became"):
        train_on(spec, make_records(8), [], tmp_path / "out", silent)
    assert not listing(tmp_path / "out/checkpoints")
    assert not (tmp_path / "out/model").exists()


@pytest.mark.slow
def test_the_last_finite_checkpoint_is_the_one_that_is_named(tmp_path: Path) -> None:
    """Spoilt after the second step's checkpoint, found out by the fourth's."""
    options = {"max_steps": 6, "checkpoint_steps": 2, "keep_checkpoints": 9}
    spec = spec_of(tmp_path, "sequence_level", optimization=options)
    made = 0

    def spoil(model: torch.nn.Module) -> None:
        nonlocal made
        made += 1
        if made == 4:
            with torch.no_grad():
                model.get_parameter("model.layers.0.mlp.up_proj.weight")[0, 0] = torch.inf

    with pytest.raises(Diverged, match=r"at step 4.*The last finite checkpoint is step 2\. Lower"):
        train_on(spec, make_records(16), [], tmp_path / "out", silent, spoil)
    (kept,) = listing(tmp_path / "out/checkpoints")
    assert kept.name == "checkpoint-2"
    assert finite(kept)


@pytest.mark.slow
def test_a_finite_loss_that_has_run_away_ends_the_run_too(tmp_path: Path) -> None:
    options = {"learning_rate": 50.0, "warmup_ratio": 0.0, "max_steps": 200, "batch_size": 4}
    spec = spec_of(tmp_path, "sequence_level", optimization=options)
    with pytest.raises(Diverged, match=r"at step 2\d: The loss became \d.*Lower optimi"):
        train_on(spec, make_records(8), [], tmp_path / "out", silent)
    assert not (tmp_path / "out/model").exists()
    assert not listing(tmp_path / "out/checkpoints")  # nothing of it is worth going on from


def test_a_loss_has_run_away_when_it_stays_high() -> None:
    def losses(*found: float) -> list[tuple[int, float]]:
        return list(enumerate(found, 1))

    assert ran_away(losses(5.0, *[200.0] * FOR_STEPS), 1000)
    assert not ran_away(losses(5.0, *[200.0] * (FOR_STEPS - 1)), 1000)
    assert not ran_away(losses(5.0, *[200.0] * (FOR_STEPS - 1), 6.0), 1000)
    assert not ran_away(losses(5.0, *[60.0] * FOR_STEPS), 1000)  # log 1000 is 6.9
    assert not ran_away(losses(270.0, *[300.0] * FOR_STEPS), 1000)
    assert not ran_away([], 1000)


def told(step: int, **terms: float) -> str:
    return str(diverged(step, "loss", math.inf, 1e-3, [(1, 2.5), (2, 9.75)], terms, None))


def test_the_diagnosis_says_what_went_and_whose_fault_it_may_be() -> None:
    later = told(2, forward_kl=math.inf)
    assert "at step 3" in later
    assert "losses before were 2.5, 9.75, this step's terms forward_kl inf. Lower" in later
    assert "the rate isn't to blame" in told(0, forward_kl=math.nan)
    assert "reverse KL is infinite. Take skew_reverse_kl" in told(0, reverse_kl=math.inf)


def test_a_validation_loss_that_is_no_number_is_never_the_best() -> None:
    assert History(validation=[(1, math.nan), (2, 5.0), (3, 4.0)]).best == 3
    assert History(validation=[(1, math.nan), (2, math.inf)]).best == 2
    assert History(validation=[(1, 3.0), (2, math.nan), (3, math.nan)]).since_best == 2


@pytest.mark.parametrize(
    "manifest",
    ["", "[]", "null", "5", '"x"', "{}", '{"digest": "d"}']
    + [f'{{"digest": "d", "files": {files}}}' for files in ("[]", "{}", "null", '["a"]')],
)
def test_a_manifest_that_is_none_is_passed_over(tmp_path: Path, manifest: str) -> None:
    (tmp_path / "checkpoint-3").mkdir()
    (tmp_path / "checkpoint-3/manifest.json").write_text(manifest)
    refused: list[str] = []
    assert newest(tmp_path, "d", lambda path, why: refused.append(why)) is None
    assert len(refused) == 1
    assert problem(tmp_path / "checkpoint-3", "d") is not None
