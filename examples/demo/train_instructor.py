"""Train the instructor: `python -m examples.demo.train_instructor --minutes 3 --out DIR`.

It goes on from the teacher's weights, on a GPU where there is one. Every step's problems depend on
(seed, step) alone; a run that is killed and started again with the same `--work` goes on from its
last checkpoint.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from random import Random

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from examples.demo import instructor
from examples.demo.batches import Batch, make_batches
from examples.demo.shape import MODELS, export
from examples.demo.tokenizer import load_tokenizer, wrap
from examples.demo.train import Plan, log, restore, run_steps, start_run


class Steps(Dataset[list[Batch]]):
    """The batches of each step of a plan, from `first` on; made in the loader's processes."""

    def __init__(self, plan: Plan, first: int, tokenizer: PreTrainedTokenizerFast) -> None:
        self._plan, self._first, self._tokenizer = plan, first, tokenizer

    def __len__(self) -> int:
        return self._plan.steps - self._first

    def __getitem__(self, place: int) -> list[Batch]:
        rng = Random(f"instructor {self._plan.seed} {self._first + place}")
        problems = [instructor.draw(rng) for _ in range(self._plan.rows)]
        return make_batches(problems, self._tokenizer, self._plan.parts)


def train(plan: Plan, workers: int) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Train to the end of the plan; the model comes back on the CPU."""
    torch.manual_seed(plan.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    start = plan.start or MODELS / "teacher"
    tokenizer = wrap(load_tokenizer(start).backend_tokenizer)
    model = LlamaForCausalLM.from_pretrained(start).float().to(device)
    # A GPU's fused kernel is the faster one; on a CPU plain matrix products are.
    model.set_attn_implementation("sdpa" if device == "cuda" else "eager")
    run = start_run(plan, model)
    checkpoint = plan.work / "checkpoint.pt"
    if checkpoint.exists():
        restore(run, checkpoint)
    log(f"on {device} from step {run.step}, {run.elapsed_s / 60:.1f} min")
    batches = batches_of(plan, run.step, tokenizer, workers)

    def draw(_done: float) -> list[Batch]:
        return [Batch(on(one.ids, device), on(one.weights, device)) for one in next(batches)]

    run_steps(plan, run, draw, checkpoint)
    return model.to("cpu"), tokenizer


def on(tensor: Tensor, device: str) -> Tensor:
    """The tensor on the device."""
    return tensor.to(device, non_blocking=True)


def batches_of(
    plan: Plan, first: int, tokenizer: PreTrainedTokenizerFast, workers: int
) -> Iterator[list[Batch]]:
    """Each step's batches in their order, made ahead by `workers` processes."""
    return iter(
        DataLoader(
            Steps(plan, first, tokenizer),
            batch_size=None,
            num_workers=workers,
            prefetch_factor=8 if workers else None,
        )
    )


def main() -> None:
    """Read the command line, train, export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path(".demo/training/instructor"))
    parser.add_argument("--out", type=Path, default=MODELS / "instructor")
    parser.add_argument("--start", type=Path, help="model directory (default: the teacher's)")
    parser.add_argument("--minutes", type=float, default=25.0)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--parts", type=int, default=3)
    parser.add_argument("--matrix-rate", type=float, default=Plan.matrix_rate)
    parser.add_argument("--vector-rate", type=float, default=Plan.vector_rate)
    parser.add_argument("--decay-share", type=float, default=0.6)
    parser.add_argument("--checkpoint-every", type=int, default=Plan.checkpoint_every)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=0, help="processes that make the batches")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    plan = Plan(
        role="teacher",
        work=given.work,
        start=given.start,
        steps=given.steps,
        minutes=given.minutes,
        rows=given.rows,
        parts=given.parts,
        seed=given.seed,
        matrix_rate=given.matrix_rate,
        vector_rate=given.vector_rate,
        decay_share=given.decay_share,
        checkpoint_every=given.checkpoint_every,
    )
    model, tokenizer = train(plan, given.workers)
    export(model, tokenizer, given.out)


if __name__ == "__main__":
    main()
