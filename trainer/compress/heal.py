"""A short training after a stage, towards the model that the chain started from."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from torch import Tensor, nn

from trainer.compress.masks import find_zeros, put_back
from trainer.compress.report import HealFacts
from trainer.events import Emit
from trainer.loading import load_model
from trainer.methods.stored import open_signal
from trainer.spec import ForwardKL, Heal, SequenceLevel, StoredKL, TrainSpec
from trainer.training import train


def heal_model(
    heal: Heal, model_dir: Path, start: Path, dataset: Path, out: Path, emit: Emit
) -> Path:
    """Train the model of `model_dir`; the directory of the healed one. Resumes by itself.

    Weights that are exactly zero in the decoder's linears stay so: a pruning mask survives.
    """
    return train(
        train_spec(heal, model_dir, start, dataset), out, emit, after_step=keep_zeros(model_dir)
    )


def method_of(heal: Heal) -> str:
    """What it is trained by; forward_kl where a plan chose nothing else."""
    return heal.method or "forward_kl"


def with_threads(heal: Heal, threads: int | None) -> Heal:
    """The heal with the chain's number of threads, unless it names its own."""
    optimization = heal.optimization
    chosen = optimization.model_copy(update={"threads": optimization.threads or threads})
    return heal.model_copy(update={"optimization": chosen})


def train_spec(heal: Heal, model_dir: Path, start: Path, dataset: Path) -> TrainSpec:
    """The heal as a training: forward_kl takes the chain's first model for its teacher, stored_kl
    the dataset's signal at the temperature that it was recorded at."""
    if heal.method == "stored_kl":
        return stored_spec(heal, model_dir, dataset)
    if heal.method == "sequence_level":
        return SequenceLevel(
            method="sequence_level",
            student=str(model_dir),
            dataset=str(dataset),
            optimization=heal.optimization,
        )
    return ForwardKL(
        method="forward_kl",
        student=str(model_dir),
        teacher=str(start),
        dataset=str(dataset),
        optimization=heal.optimization,
    )


def stored_spec(heal: Heal, model_dir: Path, dataset: Path) -> StoredKL:
    """Towards the teacher's stored signal; BadInput where the dataset has none that can be read."""
    spec = StoredKL(
        method="stored_kl",
        student=str(model_dir),
        dataset=str(dataset),
        optimization=heal.optimization,
    )
    with open_signal(spec) as reader:
        return spec.model_copy(update={"kd_temperature": reader.header.temperature})


def keep_zeros(model_dir: Path) -> Callable[[nn.Module], None]:
    """A function that puts the zeros of this model's linears back into a model in training."""
    return partial(put_back, zero_masks(model_dir))


def zero_masks(model_dir: Path) -> dict[str, Tensor]:
    """True where a weight is zero, for each linear of the decoder layers that has zeros."""
    return find_zeros(load_model(model_dir))


def unhealed(heal: HealFacts | None) -> tuple[str, ...]:
    """Where KL from the first model was what the heal should lower, and it rose."""
    if heal is None or heal.method != "forward_kl":
        return ()
    before, after = heal.kl_before, heal.kl_after
    if before is None or after is None or after <= before:
        return ()
    return (
        f"the heal took it further off: KL from the first model was {before:.4f} before it, "
        f"{after:.4f} after; the less was lost, the smaller its learning rate must be",
    )
