"""What a machine with GPUs asks of the loop, tried without one."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import TrainingArguments

from tests.trainer.compress.models import token_rows
from tests.trainer.conftest import make_model, make_record, make_tokenizer, save_model
from tests.trainer.emulated_gpu import GPU, PEAK_BYTES, RESTING_BYTES, Far, emulated_gpu
from tests.trainer.methods.made import made, spec_of
from trainer.arguments import arguments
from trainer.assess import read_rows
from trainer.beside import shown
from trainer.compress.measuring import Measuring
from trainer.compress.serving import answer_in_transformers
from trainer.device import at_work
from trainer.evaluate import examine, mean_kl
from trainer.events import silent
from trainer.loop import DistilTrainer
from trainer.memory import tensor_bytes
from trainer.spec import DatasetEval, EvalSpec
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


def test_a_model_is_on_the_gpu_while_it_is_asked_and_gives_it_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A vLLM that is started behind it needs the GPU's memory."""
    model = make_model()
    weight = model.lm_head.weight
    with emulated_gpu(monkeypatch), torch.inference_mode():
        with at_work(model):
            assert model.device == GPU
            with at_work(model):
                assert model.device == GPU
            assert model.device == GPU
        assert model.device.type == "cpu"
    assert not isinstance(model.lm_head.weight, Far)
    assert not model.lm_head.weight.is_inference()  # it may be trained yet
    assert torch.equal(model.lm_head.weight, weight)
    with at_work(model):  # without a GPU nothing is moved
        assert model.device.type == "cpu"


def test_questions_are_asked_on_the_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_model(tmp_path / "model", make_model())
    line = '{"id": "a", "skill": "s", "answer": "3", "check": "numeric", "prompt": '
    asked = [f'{line}[{{"role": "user", "content": "{text}"}}]}}' for text in ("w1", "w2 w3")]
    (tmp_path / "rows.jsonl").write_text("\n".join(asked))
    spec = EvalSpec(data=str(tmp_path / "rows.jsonl"), max_new_tokens=5)
    _, plain = examine(tmp_path / "model", spec)
    with emulated_gpu(monkeypatch) as gpu:
        measured, answered = examine(tmp_path / "model", spec)
    assert gpu.operations > 0
    assert answered == plain
    model = make_model()
    # A move to the emulated one parts the tied head from the embedding.
    own = tensor_bytes(model) + model.lm_head.weight.nbytes
    assert measured.peak_memory_bytes == own + PEAK_BYTES - RESTING_BYTES


def test_a_datasets_rows_are_read_and_answered_on_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, model, teacher = token_rows(5), make_model(), make_model(1)
    plain = read_rows(model, teacher, rows, 2)
    spec, records = DatasetEval(dataset="d", max_new_tokens=4), [make_record(0, "w1", "w2")]
    told = shown(records, ["w3"], (teacher, make_tokenizer()), spec)
    with emulated_gpu(monkeypatch) as gpu:
        assert read_rows(model, teacher, rows, 2) == plain
        read = gpu.operations
        assert shown(records, ["w3"], (teacher, make_tokenizer()), spec) == told
    assert 0 < read < gpu.operations


def test_a_chains_models_are_compared_on_the_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, first, other = token_rows(5), make_model(), make_model(1)
    plain = mean_kl(first, other, rows)
    save_model(tmp_path / "first", first)
    save_model(tmp_path / "other", other)
    measuring = Measuring(tmp_path / "first", None, rows, "train", (), "")
    prompts = [[2, 9, 3], [2, 9, 10, 3]]
    answers = answer_in_transformers(first, prompts, 3, frozenset({3}))
    with emulated_gpu(monkeypatch) as gpu:
        assert mean_kl(first, other, rows) == plain
        asked = gpu.operations
        assert measuring.kl(tmp_path / "first", tmp_path / "other") == plain
        held = [*measuring._first.hidden, *measuring._first.head.parameters()]
        assert {one.device.type for one in held} == {"cpu"}
        compared = gpu.operations
        assert answer_in_transformers(first, prompts, 3, frozenset({3})) == answers
    assert 0 < asked < compared < gpu.operations
