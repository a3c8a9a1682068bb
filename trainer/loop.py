"""The one training loop: transformers.Trainer, with the few methods overridden whose behaviour
an invariant of ours forbids. Every override says which.

A Trainer 'batch' here is a whole optimizer step's rows; accumulation happens inside
`training_step`, where the count of kept tokens over all passes and ranks is known.
"""

import contextlib
import functools
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers.trainer_callback import PrinterCallback, TrainerState

from trainer import checkpoint
from trainer.after_step import AfterStep
from trainer.arguments import arguments
from trainer.batch import Batch
from trainer.best import load_best, save_best, thin_best
from trainer.data import TokenRow
from trainer.diagnosis import all_finite, diverged, ran_away
from trainer.errors import Diverged
from trainer.events import Emit
from trainer.history import History
from trainer.order import passes
from trainer.plan import Plan, Steps, lay_out, layout
from trainer.samples import Sampler
from trainer.spec import Optimization
from trainer.stop import Stop
from trainer.student import Moment, Student


class DistilTrainer(transformers.Trainer):
    """Trains a `Student` by a `Plan`; says what happens through `emit`.

    `step` events come about once a second; their tokens_per_s are completion tokens.
    """

    def __init__(
        self,
        student: Student,
        rows: tuple[TokenRow, ...],
        validation: tuple[TokenRow, ...],
        plan: Plan,
        optimization: Optimization,
        directory: Path,
        digest: str,
        emit: Emit,
        stop: Stop,
        sampler: Sampler | None = None,
        after_step: Callable[[nn.Module], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        saves: bool = True,
    ) -> None:
        self.history = History()
        self.student = student
        self._validation = validation
        self._plan = plan
        self._optimization = optimization
        self._directory = directory
        self._digest = digest
        self._emit = emit
        self._sampler = sampler
        self._clock = clock
        self._saves = saves
        self._began = self._spoken = clock()
        self._tokens = 0.0
        self._terms: dict[str, float] = {}
        args = arguments(optimization, plan, directory, bool(validation))
        super().__init__(
            model=student,
            args=args,
            eval_dataset=validation,
            callbacks=[AfterStep(student.model, stop, self.total, after_step)],
        )
        self.remove_callback(PrinterCallback)  # it prints dicts on standard output
        self._steps = Steps(rows, plan, optimization, args.process_index, args.world_size)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """One batch per optimizer step, in the plan's order. Not given to accelerate, which would
        deal rows to ranks its own way and repeat some to fill up; each rank takes its share."""
        return DataLoader(self._steps, batch_size=1, shuffle=False, collate_fn=_only)

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """By the plan."""
        if self.lr_scheduler is None:
            chosen = optimizer or self.optimizer
            assert chosen is not None
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(chosen, self._plan.rate)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def training_step(
        self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None
    ) -> Tensor:
        """All forward and backward passes of one optimizer step.

        The loss is divided by the kept tokens of all its passes on all ranks: dividing each pass
        by its own would weigh short rows more, and change with batch_size.
        """
        model.train()
        batches = self._learnt(model, [batch.to(self.args.device) for batch in inputs])
        counts = {
            share: self.total(float(sum(b.kept for b in batches if b.share == share)))
            for share in sorted({batch.share for batch in batches})
        }
        total, terms = torch.zeros(()), dict[str, Tensor]()
        for index, batch in enumerate(batches):
            task = functools.partial(Student.loss, batch=batch, count=max(counts[batch.share], 1.0))
            last = index == len(batches) - 1
            with contextlib.nullcontext() if last else self.accelerator.no_sync(model):
                loss, made = model(task)
                # DDP and FSDP average over ranks; ours is a sum.
                self.accelerator.backward(loss * self.args.world_size)
            total += loss.detach().to(total)
            for name, value in made.items():
                terms[name] = terms.get(name, 0.0) + value
        self._tokens += counts["main"]
        self.history.tokens += counts["main"]
        self._terms = {name: self.total(float(value)) for name, value in terms.items()}
        summed = self.total(float(total))
        if not math.isfinite(summed):
            raise self._diverged("loss", summed)
        return torch.tensor(summed, device=self.args.device)  # the library refuses another

    @torch.no_grad()
    def _learnt(self, model: nn.Module, batches: list[Batch]) -> list[Batch]:
        """The step's rows, or what the method makes of them; nothing here gets a gradient."""
        passes = self.student.objective.passes
        if passes is None:
            return batches
        rank, seed = self.args.process_index, self._optimization.seed
        moment = Moment(self.state.global_step, seed, rank, _ranks(self))
        return passes(model, batches, moment)

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        """Stops at a gradient that isn't finite, before the optimizer takes it: clipping would
        turn it into NaN weights."""
        norm = super()._clip_grad_norm(model)  # type: ignore[no-untyped-call]
        if not math.isfinite(float(norm)):
            raise self._diverged("gradient norm", float(norm))
        return norm

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """A `step` event, about one a second; nothing else, and no history in the state file."""
        step = self.state.global_step
        if "loss" not in logs:
            return
        self.history.losses.append((step, logs["loss"]))
        elapsed = self._clock() - self._spoken
        if step == 1 or elapsed >= 1.0 or step == self._plan.steps:
            figures = {name: logs[name] for name in ("loss", "learning_rate", "grad_norm")}
            epoch = step / self._plan.order.steps_per_epoch
            speed = self._tokens / max(elapsed, 1e-9)
            place = {"step": step, "steps": self._plan.steps, "epoch": epoch}
            self._say("step", {**place, **figures, "tokens_per_s": speed, **self._terms})
            self._spoken, self._tokens = self._clock(), 0.0
        self._report({**logs, **self._terms})
        if ran_away(self.history.losses, self.student.model.config.get_text_config().vocab_size):
            raise self._named(step - 1, "loss", logs["loss"])

    def _report(self, figures: dict[str, float]) -> None:
        """To what `report_to` names."""
        self.control = self.callback_handler.on_log(self.args, self.state, self.control, figures)

    def evaluate(self, *args: Any, **options: Any) -> dict[str, float]:
        """Mean loss per kept token of the validation rows, and its terms; the library's mean of
        batch means would weigh batches by their number, not by their tokens."""
        step, figures = self.state.global_step, self.validation_figures()
        loss = figures["loss"]
        self.history.validation.append((step, loss))
        self._say("validation", {"step": step, **figures})
        self._report({f"eval_{name}": value for name, value in figures.items()})
        if self._sampler is not None:
            self.history.samples.append({"step": step, "rows": self._sampler.ask(self._wrapped)})
            self._say("samples", self.history.samples[-1])
        if self._optimization.keep == "best" and self.history.best == step:
            self._save_best(step)
        if self._out_of_patience():
            self.control.should_training_stop = True
            self._say("phase", {"name": "early stop", "detail": f"best was {self.history.best}"})
        metrics = {"eval_loss": loss}
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        self._spoken, self._tokens = self._clock(), 0.0
        return metrics

    def _out_of_patience(self) -> bool:
        patience = self._optimization.patience
        return patience is not None and self.history.since_best >= patience

    def ended_at(self, path: Path) -> bool:
        """Takes up a checkpoint at which the run had stopped early: the library forgets that it
        had, and would train on. Parts of a student are taken up by training alone."""
        if self.sharded or self._optimization.patience is None:
            return False
        self.history = _history_of(path)
        if not self._out_of_patience():
            return False
        self._load_from_checkpoint(str(path))
        self.state = TrainerState.load_from_json(str(path / "trainer_state.json"))
        return True

    @torch.no_grad()
    def validation_figures(self) -> dict[str, float]:
        """Loss and terms over rows sorted by length, each rank its share, dropout off."""
        self.model_wrapped.eval()
        rows = sorted(self._validation, key=lambda row: len(row.ids))
        count = float(sum(row.completion_tokens for row in rows))
        size, rank, ranks = self._optimization.batch_size, self.args.process_index, _ranks(self)
        lay, figures = layout(self._optimization), {"loss": 0.0}
        for part in passes(np.arange(len(rows)), size, rank, ranks):
            batch = lay_out(rows, part, 0, lay).to(self.args.device)
            loss, made = self._wrapped(functools.partial(Student.loss, batch=batch, count=count))
            for name, value in {"loss": loss, **made}.items():
                figures[name] = figures.get(name, 0.0) + float(value)
        return {name: self.total(value) for name, value in figures.items()}

    def _wrapped(self, task: Callable[[Student], Any]) -> Any:
        """A task within the forward of whatever wraps the student."""
        return self.model_wrapped(task)

    @property
    def sharded(self) -> bool:
        """Whether each rank holds a part of the student only (FSDP)."""
        return bool(self.is_fsdp_enabled)

    def kept_weights(self) -> dict[str, Tensor]:
        """The whole student's that the run ends with, on rank 0; for every rank to call."""
        step = self.history.best
        if self._optimization.keep == "last" or step is None:
            return self._whole()
        first = self.args.process_index == 0
        found = load_best(self._directory, step, self._digest) if first else {}
        if self.total(float(isinstance(found, str))) == 0:
            assert not isinstance(found, str)
            return found
        told = f"the best weights, of step {step}, can't be had ({found}): the last ones are kept"
        self._say("warning", {"detail": told})
        return self._whole()

    def _whole(self) -> dict[str, Tensor]:
        """Put together from all ranks' parts, where they hold parts."""
        return dict(self.accelerator.get_state_dict(self.model_wrapped))

    def _save_best(self, step: int) -> None:
        weights = self._whole()
        if self.args.should_save:
            save_best(self._directory, step, weights, self._digest)
        self._say("phase", {"name": "best", "detail": f"step {step}"})

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """None of weights that are no numbers: a rate too high may leave such behind a finite loss
        and gradient, and the last step's would be the student."""
        if not self._sound():
            raise self._diverged("weights", math.nan)
        self._write_checkpoint(model, trial)

    def _write_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Saved aside, hashed, renamed: the library writes in place, and a kill leaves half."""
        if not self._saves:
            return
        started = self._clock()
        super()._save_checkpoint(model, trial)
        name = f"checkpoint-{self.state.global_step}"
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            written = Path(self._get_output_dir(trial)) / name
            checkpoint.seal(written, self._directory / name, self._digest)
            keep, step = self._optimization.keep_checkpoints, self.state.global_step
            checkpoint.thin(self._directory, keep, self._digest, step)
            thin_best(self._directory, self.history.best, self._digest)
        detail = f"step {self.state.global_step}, {self._clock() - started:.2f} s"
        self._say("phase", {"name": "checkpoint", "detail": detail})

    def _get_output_dir(self, trial: Any) -> str:
        """Where checkpoints are written before they are sealed."""
        return str(self._directory / checkpoint.WRITING)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Weights by torch.save: safetensors refuses the tied tensors of a wrapped model. FSDP's
        own file of them comes with its optimizer's."""
        target = Path(output_dir or self._get_output_dir(None))
        target.mkdir(parents=True, exist_ok=True)
        if not self.sharded:
            torch.save(state_dict or self.student.state_dict(), target / "pytorch_model.bin")
        spent = self.history.seconds + self._clock() - self._began
        torch.save(asdict(self.history) | {"seconds": spent}, target / HISTORY)

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: nn.Module | None = None
    ) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self.history = _history_of(Path(resume_from_checkpoint))

    def _diverged(self, what: str, value: float) -> Diverged:
        """Keeps the weights from before the step, where they are finite still."""
        step = self.state.global_step
        self.model_wrapped.zero_grad()
        target = self._directory / f"checkpoint-{step}"
        if step and checkpoint.problem(target, self._digest) is not None and self._sound():
            self._write_checkpoint(self.model_wrapped, None)
        return self._named(step, what, value)

    def _named(self, step: int, what: str, value: float) -> Diverged:
        """With what was seen before and what is left."""
        rate = self._get_learning_rate()
        kept = checkpoint.newest(self._directory, self._digest, lambda path, problem: None)
        last = None if kept is None else checkpoint.step_of(kept)
        return diverged(step, what, value, rate, self.history.losses, self._terms, last)

    def _sound(self) -> bool:
        """Whether all weights are finite, on all ranks."""
        return self.total(float(not all_finite(self.student))) == 0

    def total(self, value: float) -> float:
        """Over ranks."""
        if self.args.world_size == 1:
            return value
        here = torch.tensor(value, dtype=torch.float64, device=self.args.device)
        return float(self.accelerator.reduce(here, reduction="sum"))

    def _say(self, event: str, fields: dict[str, Any]) -> None:
        if self.args.process_index == 0:
            self._emit(event, fields)


HISTORY = "history.pt"


def _history_of(path: Path) -> History:
    return History(**torch.load(path / HISTORY, weights_only=True))


def _only(steps: list[list[Batch]]) -> list[Batch]:
    return steps[0]


def _ranks(trainer: transformers.Trainer) -> int:
    return int(trainer.args.world_size)
