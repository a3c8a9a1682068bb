"""Train a demo model: `python -m examples.demo.train teacher --minutes 60 --work DIR`.

Every step sees fresh problems that depend on (role, seed, step) alone, so a run that is killed
and started again with the same `--work` goes on exactly where its last checkpoint stood.
"""

import argparse
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from examples.demo.batches import Batch, make_batches
from examples.demo.curriculum import draw_problems
from examples.demo.measure import quick_line
from examples.demo.shape import MODELS, ROLES, SHAPES, Role, Shape, export, make_model
from examples.demo.tokenizer import load_tokenizer, train_tokenizer, wrap


@dataclass(frozen=True)
class Plan:
    """How to train. The training ends after `steps` or `minutes`, whichever comes first."""

    role: Role
    work: Path
    start: Path | None = None
    curriculum_from: float = 0.0
    steps: int = 100_000
    minutes: float = 60.0
    rows: int = 64
    parts: int = 3
    seed: int = 0
    matrix_rate: float = 1.5e-3
    vector_rate: float = 1.5e-3
    weight_decay: float = 0.01
    warmup_steps: int = 60
    decay_share: float = 0.45
    checkpoint_every: int = 100
    evaluate_every: int = 250


@dataclass
class Run:
    """Everything that a checkpoint holds."""

    model: LlamaForCausalLM
    optimizers: list[torch.optim.Optimizer]
    step: int = 0
    elapsed_s: float = 0.0


def train(plan: Plan, shape: Shape, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Train to the end of the plan, from the last checkpoint in `plan.work` if there is one."""
    torch.manual_seed(plan.seed)
    model = make_model(shape, tokenizer)
    if plan.start is not None:
        model.load_state_dict(LlamaForCausalLM.from_pretrained(plan.start).float().state_dict())
    run = start_run(plan, model)
    # At 50 to 130 tokens a row, plain matrix products beat the fused kernel's backward pass.
    run.model.set_attn_implementation("eager")
    checkpoint = plan.work / "checkpoint.pt"
    if checkpoint.exists():
        restore(run, checkpoint)

    def draw(done: float) -> list[Batch]:
        taught = plan.curriculum_from + (1 - plan.curriculum_from) * done
        problems = draw_problems(plan.role, plan.seed, run.step, taught, plan.rows)
        return make_batches(problems, tokenizer, plan.parts)

    def look() -> None:
        if run.step % plan.evaluate_every == 0:
            log(quick_line(run.model, tokenizer))

    run_steps(plan, run, draw, checkpoint, look)
    return run.model


def run_steps(
    plan: Plan,
    run: Run,
    draw: Callable[[float], list[Batch]],
    checkpoint: Path,
    look: Callable[[], None] = lambda: None,
) -> None:
    """Step until the plan is over, on the batches that `draw` makes for a share of it that is done;
    `look` is called after each step."""
    recent: list[float] = []
    while (done := progress_of(plan, run)) < 1.0:
        began = time.monotonic()
        rate = rate_at(plan, run.step, done)
        recent.append(train_step(run, draw(done), rate))
        run.step += 1
        run.elapsed_s += time.monotonic() - began
        if run.step % 25 == 0:
            loss = sum(recent) / len(recent)
            per_step = time.monotonic() - began
            log(
                f"step {run.step} loss {loss:.4f} rate {rate:.3f} {per_step:.2f} s/step "
                f"{run.elapsed_s / 60:.1f} min"
            )
            recent.clear()
        if run.step % plan.checkpoint_every == 0:
            save(run, checkpoint)
        look()
    save(run, checkpoint)


def train_step(run: Run, batches: list[Batch], rate: float) -> float:
    """One optimizer step over all of `batches`; the loss is nats per weighted token."""
    run.model.train()
    weight = sum(float(batch.weights[:, 1:].sum()) for batch in batches)
    total = 0.0
    for batch in batches:
        with torch.autocast(batch.ids.device.type, torch.bfloat16):
            loss = weighted_nll(run.model, batch) / weight
        loss.backward()
        total += float(loss.detach())
    nn.utils.clip_grad_norm_(run.model.parameters(), 1.0)
    for optimizer in run.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * rate
        optimizer.step()
        optimizer.zero_grad()
    return total


def weighted_nll(model: LlamaForCausalLM, batch: Batch) -> Tensor:
    """Sum over tokens of weight x negative log-likelihood, in float32.

    Only positions with a weight reach the vocabulary: prompts are half of the tokens. Rows are
    padded on the right, where causal attention cannot see the padding, so there is no mask.
    """
    hidden = model.model(input_ids=batch.ids[:, :-1], use_cache=False).last_hidden_state
    weights = batch.weights[:, 1:]
    kept = weights > 0
    logits = model.lm_head(hidden[kept]).float()
    nll = nn.functional.cross_entropy(logits, batch.ids[:, 1:][kept], reduction="none")
    return (nll * weights[kept]).sum()


def start_run(plan: Plan, model: LlamaForCausalLM) -> Run:
    """Muon for the matrices of the layers, AdamW for embeddings and norms."""
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    chosen = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in chosen]
    muon = torch.optim.Muon(
        matrices,
        lr=plan.matrix_rate,
        weight_decay=plan.weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )
    adamw = torch.optim.AdamW(others, lr=plan.vector_rate, betas=(0.9, 0.98), weight_decay=0.0)
    for optimizer in (muon, adamw):
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return Run(model, [muon, adamw])


def progress_of(plan: Plan, run: Run) -> float:
    """The share of the training that is done, by steps or by time, whichever is further."""
    return max(run.step / plan.steps, run.elapsed_s / (60 * plan.minutes))


def rate_at(plan: Plan, step: int, progress: float) -> float:
    """The share of the peak learning rate: linear warm-up, plateau, cosine decay to 2%."""
    warm = min(1.0, (step + 1) / plan.warmup_steps)
    late = max(0.0, progress - (1 - plan.decay_share)) / plan.decay_share
    return warm * (0.02 + 0.98 * (1 + math.cos(math.pi * min(1.0, late))) / 2)


def save(run: Run, path: Path) -> None:
    """Write the checkpoint beside its place, then move it there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {
        "model": run.model.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in run.optimizers],
        "step": run.step,
        "elapsed_s": run.elapsed_s,
    }
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    os.replace(partial, path)


def restore(run: Run, path: Path) -> None:
    """Put a checkpoint's state into a fresh run of the same shape."""
    state: dict[str, Any] = torch.load(path, weights_only=True)
    run.model.load_state_dict(state["model"])
    for optimizer, saved in zip(run.optimizers, state["optimizers"], strict=True):
        peaks = [group["peak"] for group in optimizer.param_groups]
        optimizer.load_state_dict(saved)
        # The plan decides the rates, so that a run can go on with other ones.
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["peak"] = peak
    run.step, run.elapsed_s = state["step"], state["elapsed_s"]


def log(line: str) -> None:
    """Print with the time of day, at once."""
    print(time.strftime("%H:%M:%S"), line, flush=True)


def main() -> None:
    """Read the command line, train, export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", choices=ROLES)
    parser.add_argument("--work", type=Path, default=Path(".demo/training"))
    parser.add_argument("--out", type=Path, help="model directory (default: examples/demo/models)")
    parser.add_argument("--start", type=Path, help="model directory whose weights to start from")
    parser.add_argument(
        "--curriculum-from",
        type=float,
        default=0.0,
        help="the share of the curriculum that the model of --start knows already",
    )
    parser.add_argument("--matrix-rate", type=float, default=Plan.matrix_rate)
    parser.add_argument("--decay-share", type=float, default=Plan.decay_share)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    plan = Plan(
        role=arguments.role,
        work=arguments.work / arguments.role,
        start=arguments.start,
        curriculum_from=arguments.curriculum_from,
        matrix_rate=arguments.matrix_rate,
        decay_share=arguments.decay_share,
        steps=arguments.steps,
        minutes=arguments.minutes,
        rows=arguments.rows,
        seed=arguments.seed,
    )
    tokenizer = train_tokenizer()
    if plan.start is not None:
        tokenizer = wrap(load_tokenizer(plan.start).backend_tokenizer)
    model = train(plan, SHAPES[plan.role], tokenizer)
    export(model, tokenizer, arguments.out or MODELS / plan.role)


if __name__ == "__main__":
    main()
