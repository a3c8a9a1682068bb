"""What transformers.Trainer is told."""

import importlib.util
from pathlib import Path

import torch
from transformers import TrainingArguments

from trainer.errors import BadInput
from trainer.plan import Plan
from trainer.spec import Optimization


def arguments(
    optimization: Optimization, plan: Plan, directory: Path, validates: bool
) -> TrainingArguments:
    """The library's own switches; what it would do by itself and we do elsewhere is off."""
    return TrainingArguments(
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


def check_reporting(optimization: Optimization) -> None:
    """BadInput where figures are to go to what isn't installed."""
    if "tensorboard" in optimization.report_to and not any(
        importlib.util.find_spec(name) for name in ("tensorboard", "tensorboardX")
    ):
        raise BadInput(
            "optimization.report_to: tensorboard is not installed",
            "Install it (pip install tensorboard), or leave report_to empty: `step` events hold "
            "the same figures.",
        )
