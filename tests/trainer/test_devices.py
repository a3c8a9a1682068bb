"""What a machine with GPUs asks of the loop, tried without one."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import TrainingArguments

from tests.trainer.methods.made import made, spec_of
from trainer.arguments import arguments
from trainer.events import silent
from trainer.loop import DistilTrainer
from trainer.stop import Stop


def test_a_step_gives_its_loss_on_the_device_that_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers refuses one that lies elsewhere: on a GPU no run got beyond its first step."""
    run, student = made(spec_of(tmp_path, "sequence_level"))
    options = (run.plan, run.spec.optimization, tmp_path, run.digest, silent, Stop())
    trainer = DistilTrainer(student, run.rows.rows, (), *options)

    class Half(nn.Module):
        def forward(self, task: Any) -> tuple[Tensor, dict[str, Tensor]]:
            return torch.tensor(0.5, requires_grad=True), {}

    batch: Any = SimpleNamespace(kept=2, share="main")
    batch.to = lambda device: batch
    monkeypatch.setattr(TrainingArguments, "device", torch.device("meta"))
    assert trainer.training_step(Half(), [batch]).device.type == "meta"


def test_one_process_takes_one_gpu_of_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers would copy the student to all of them, and a task's rows to one."""

    def eight(args: Any) -> torch.device:
        args.__dict__.setdefault("_n_gpu", 8)
        return torch.device("cpu")

    monkeypatch.setattr(TrainingArguments, "_setup_devices", property(eight))
    run, _ = made(spec_of(tmp_path, "sequence_level"))
    assert arguments(run.spec.optimization, run.plan, tmp_path, False).n_gpu == 1
