"""How an optimizer run goes."""

from typing import Literal

from pydantic import Field

from trainer.spec.base import Spec

Tracker = Literal["tensorboard", "wandb", "mlflow", "trackio", "comet_ml", "clearml", "swanlab"]


class Optimization(Spec):
    """One optimizer run: AdamW, linear warm-up, cosine decay to a tenth."""

    learning_rate: float = Field(1e-3, gt=0)
    """Peak."""
    warmup_ratio: float = Field(0.05, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    batch_size: int = Field(32, ge=1)
    """Rows in one forward pass."""
    accumulation: int = Field(1, ge=1)
    """Forward passes in one optimizer step."""
    epochs: float = Field(1.0, gt=0)
    max_steps: int | None = Field(None, ge=1)
    """Overrides epochs."""
    max_length: int = Field(1024, ge=8)
    """Tokens; longer rows are left out and counted."""
    max_grad_norm: float = Field(1.0, gt=0)
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16 is autocast; weights and optimizer stay fp32."""
    packing: bool = False
    """Rows of a forward pass share sequences of up to max_length tokens, none seeing another; the
    same loss with less padding."""
    gradient_checkpointing: bool = False
    """Activations are made again in the backward pass: less memory, about a third more time."""
    seed: int = Field(0, ge=0, lt=2**32)
    checkpoint_steps: int = Field(100, ge=1)
    keep_checkpoints: int = Field(2, ge=1)
    eval_steps: int = Field(100, ge=1)
    """Optimizer steps between measurements of the validation loss."""
    sample_rows: int = Field(3, ge=0)
    """Validation prompts that the student answers greedily at each of these measurements, to be
    read beside the dataset's answers; 0 asks none."""
    sample_tokens: int = Field(128, ge=1)
    """New tokens of such an answer."""
    keep: Literal["last", "best"] = "last"
    """The weights that the student ends with: the last, or those of the lowest validation loss."""
    patience: int | None = Field(None, ge=1)
    """Stops after so many measurements of the validation loss without a new lowest."""
    report_to: tuple[Tracker, ...] = ()
    """Where figures go besides the events; needs that package, set up in its own way."""
    threads: int | None = Field(None, ge=1)
    """CPU threads; None takes all cores. Pinned, because results depend on it."""
