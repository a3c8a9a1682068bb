"""Is the student base a good one to distil into? `python -m examples.demo.distil_check`.

Fine-tunes the base on the teacher's own verified completions (plain next-token training, AdamW)
and says how much of the gap on held-out problems that closes. A product run does the same through
services; this is the quick look that finds its settings.
"""

import argparse
import time
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from examples.demo import world
from examples.demo.answers import ask, is_right
from examples.demo.batches import make_batches
from examples.demo.measure import measure, table
from examples.demo.seeds import draw_seed_problems
from examples.demo.shape import MODELS
from examples.demo.tokenizer import load_tokenizer
from examples.demo.train import weighted_nll


@dataclass(frozen=True)
class Settings:
    """A linear warm-up over 3% of the steps, then a linear decay to zero."""

    rate: float
    batch_rows: int
    epochs: int
    seed: int = 0


def teach(
    teacher: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, problems: list[world.Problem]
) -> list[world.Problem]:
    """The problems that the teacher solves, with its words in place of the reference."""
    texts = ask(teacher, tokenizer, problems)
    answered = zip(problems, texts, strict=True)
    return [replace(p, completion=t, targets=()) for p, t in answered if is_right(p, t)]


def fine_tune(
    student: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    problems: list[world.Problem],
    settings: Settings,
) -> None:
    """Train `student` in place on the completions of `problems`."""
    optimizer = torch.optim.AdamW(student.parameters(), lr=settings.rate, weight_decay=0.0)
    per_epoch = len(problems) // settings.batch_rows
    steps, rng = per_epoch * settings.epochs, Random(settings.seed)
    warmup = max(1, steps * 3 // 100)
    student.train()
    for step in range(steps):
        if step % per_epoch == 0:
            order = rng.sample(problems, len(problems))
        start = step % per_epoch * settings.batch_rows
        [batch] = make_batches(order[start : start + settings.batch_rows], tokenizer, 1)
        for group in optimizer.param_groups:
            group["lr"] = settings.rate * min((step + 1) / warmup, 1 - step / steps)
        with torch.autocast("cpu", torch.bfloat16):
            loss = weighted_nll(student, batch) / batch.weights.sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 50 == 0:
            print(f"step {step} of {steps}: loss {loss.item():.4f}", flush=True)


def main() -> None:
    """Read the command line, run the check, print what it gained and cost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--teacher", type=Path, default=MODELS / "teacher")
    parser.add_argument("--base", type=Path, default=MODELS / "student-base")
    parser.add_argument("--skill", choices=("cot", "icl", "if"), default="cot")
    parser.add_argument("--rows", type=int, default=1200)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--batch-rows", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--n", type=int, default=300)
    parser.add_argument("--threads", type=int, default=2)
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    tokenizer = load_tokenizer(a.teacher)
    teacher = LlamaForCausalLM.from_pretrained(a.teacher, dtype=torch.bfloat16)
    base = LlamaForCausalLM.from_pretrained(
        a.base, dtype=torch.float32, attn_implementation="eager"
    )
    print(table(measure(base, tokenizer, a.n, (a.skill,))), flush=True)
    began = time.monotonic()
    problems = teach(teacher, tokenizer, draw_seed_problems(a.skill, a.rows))
    print(f"{len(problems)} of {a.rows} accepted in {time.monotonic() - began:.0f} s", flush=True)
    began = time.monotonic()
    fine_tune(base, tokenizer, problems, Settings(a.rate, a.batch_rows, a.epochs))
    print(f"fine-tuned in {time.monotonic() - began:.0f} s", flush=True)
    print(table(measure(base, tokenizer, a.n, (a.skill,))))


if __name__ == "__main__":
    main()
