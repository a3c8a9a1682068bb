"""What transformers.Trainer is told."""

import importlib.util
from pathlib import Path

import torch
from transformers import TrainingArguments

from trainer.errors import BadInput
from trainer.plan import Plan
from trainer.spec import Optimization
from trainer.spec.optimization import Tracker


def arguments(
    optimization: Optimization, plan: Plan, directory: Path, validates: bool
) -> TrainingArguments:
    """The library's own switches; what it would do by itself and we do elsewhere is off."""
    made = TrainingArguments(
        output_dir=str(directory),
        max_steps=plan.steps,
        per_device_train_batch_size=1,
        learning_rate=optimization.learning_rate,
        weight_decay=optimization.weight_decay,
        max_grad_norm=optimization.max_grad_norm,
        seed=optimization.seed,
        logging_steps=1,
        logging_nan_inf_filter=False,
        eval_strategy="steps" if validates else "no",
        eval_steps=optimization.eval_steps,
        save_steps=optimization.checkpoint_steps,
        save_total_limit=None,
        use_cpu=not torch.cuda.is_available(),
        dataloader_num_workers=0,
        dataloader_pin_memory=False,
        disable_tqdm=True,
        report_to=list(optimization.report_to),
        remove_unused_columns=False,
    )
    # A process trains on one GPU: several would make the library wrap the student in DataParallel,
    # which hands one GPU's rows to copies of the student on the others.
    made._n_gpu = min(made.n_gpu, 1)
    return made


PACKAGES: dict[Tracker, tuple[str, ...]] = {
    "tensorboard": ("tensorboard", "tensorboardX"),
    "wandb": ("wandb",),
    "mlflow": ("mlflow",),
    "trackio": ("trackio",),
    "comet_ml": ("comet_ml",),
    "clearml": ("clearml",),
    "swanlab": ("swanlab",),
}
"""Any one of which is needed."""


def check_reporting(optimization: Optimization) -> None:
    """BadInput where figures are to go to what isn't installed."""
    for tracker in optimization.report_to:
        if not any(importlib.util.find_spec(name) for name in PACKAGES[tracker]):
            raise BadInput(
                f"optimization.report_to: {tracker} is not installed",
                f"Install it (pip install {PACKAGES[tracker][0]}), or leave it out: `step` events "
                "hold the same figures.",
            )
