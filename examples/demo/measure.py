"""Measure a demo model on held-out problems: `python -m examples.demo.measure --n 300`.

Prints accuracies with 95% Wilson intervals, from greedy decoding in transformers.
"""

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from examples.demo.answers import ask, is_right
from examples.demo.cards import write_card
from examples.demo.heldout import SETS, heldout
from examples.demo.shape import MODELS, ROLES
from examples.demo.tokenizer import load_tokenizer

QUICK_SETS = ("cot", "cot-direct", "icl", "icl-zero", "if-1", "if")


@dataclass(frozen=True)
class Figure:
    """`right` of `asked` problems answered rightly."""

    right: int
    asked: int

    @property
    def accuracy(self) -> float:
        """The share of right answers, 0..1."""
        return self.right / self.asked

    def interval(self, z: float = 1.96) -> tuple[float, float]:
        """The 95% interval of the accuracy (Wilson, 1927)."""
        n, share = self.asked, self.accuracy
        centre = (share + z * z / (2 * n)) / (1 + z * z / n)
        half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
        return max(0.0, centre - half), min(1.0, centre + half)


def measure(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    rows: int,
    names: tuple[str, ...] = tuple(SETS),
) -> dict[str, Figure]:
    """The figure of each named set, over `rows` problems each."""
    figures = {}
    for name in names:
        problems = heldout(name, rows)
        texts = ask(model, tokenizer, problems)
        right = sum(map(is_right, problems, texts))
        figures[name] = Figure(right, rows)
    return figures


def quick_line(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, rows: int = 40) -> str:
    """A rough look at each skill in one line, for the training log."""
    figures = measure(model, tokenizer, rows, QUICK_SETS)
    return " ".join(f"{name} {figure.accuracy:.2f}" for name, figure in figures.items())


def table(figures: dict[str, Figure]) -> str:
    """The figures as a Markdown table."""
    lines = [
        "| held-out problems | right | asked | accuracy | 95% interval |",
        "|---|--:|--:|--:|--:|",
    ]
    for name, figure in figures.items():
        low, high = figure.interval()
        lines.append(
            f"| {SETS[name][0]} (`{name}`) | {figure.right} | {figure.asked} "
            f"| {figure.accuracy:.1%} | {low:.1%} to {high:.1%} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure one directory, or both bundled models."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="a model directory (default: both bundled ones)")
    parser.add_argument("--n", type=int, default=300, help="problems per set")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--write-cards", action="store_true", help="write README.md into the model")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    directories = [arguments.model] if arguments.model else [MODELS / role for role in ROLES]
    for directory in directories:
        model = LlamaForCausalLM.from_pretrained(directory, dtype=torch.bfloat16)
        figures = measure(model, load_tokenizer(directory), arguments.n)
        print(f"## {directory.name}\n\n{table(figures)}\n", flush=True)
        if arguments.write_cards:
            write_card(directory, model, table(figures))


if __name__ == "__main__":
    main()
