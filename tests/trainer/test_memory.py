"""Peak memory, of a process and of a model in it."""

import gc

import pytest
import torch

from trainer.memory import keep_imports, model_peak, peak_bytes, restart_peak

CPU = torch.device("cpu")


@pytest.mark.slow
def test_the_peak_is_of_the_work_and_not_of_what_went_before() -> None:
    size = 200 * 2**20
    assert torch.ones(2 * size, dtype=torch.uint8).sum() == 2 * size
    before = restart_peak(CPU)
    held = torch.ones(size, dtype=torch.uint8)
    assert 0.9 * size < peak_bytes(CPU) - before < 1.5 * size
    model = torch.nn.Linear(1024, 1024)
    assert 0.9 * size < model_peak(model, before, CPU) - 4 * 1025 * 1024 < 1.5 * size
    assert model_peak(model, restart_peak(CPU), CPU) < 4 * 1025 * 1024 + 0.1 * size
    del held


def test_what_stands_by_now_is_left_out_of_collections() -> None:
    before = gc.get_freeze_count()
    held: list[list[int]] = [[] for _ in range(1000)]
    keep_imports()
    assert gc.get_freeze_count() >= before + len(held)
