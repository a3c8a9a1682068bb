"""python -m examples.compression.attempts --table DIR: what was tried where a method is above its
floor, on the model that `examples.compression.table --out DIR` trained on text, or on a student
(--model, with --dataset).

Wanda against magnitude, each within rows and over whole matrices; AWQ against rounding to nearest,
with more rows, smaller groups, and rescaled in some places alone. Nats a token (a byte, of text) of
validation rows, or KL from the model as it was.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from trainer.assess import read_rows
from trainer.compress.activations import observe
from trainer.compress.anatomy import find_anatomy
from trainer.compress.layout import find_layers, find_linears
from trainer.compress.masks import Pattern, keep_in_all, keep_in_rows
from trainer.compress.measured import spread
from trainer.compress.moments import collect
from trainer.compress.rounding import rtn
from trainer.compress.schemes import SCHEMES, targets_of
from trainer.compress.smoothing import awq, find_folds, rescale, rounding_loss
from trainer.compress.wanda import importance
from trainer.data import TokenRow, encode, read_records
from trainer.loading import end_ids, load_model, load_tokenizer

Score = Callable[[Tensor, Tensor], Tensor]
"""(weight [m, n], norms of its inputs [n]) -> [m, n]"""
Keep = Callable[[Tensor, float, Pattern], Tensor]
FOUR = SCHEMES["W4A16"]
MASKS: tuple[tuple[str, int, Score, Keep], ...] = (
    ("magnitude, within rows", 128, lambda w, norms: w.double().abs(), keep_in_rows),
    ("magnitude, over the matrix", 128, lambda w, norms: w.double().abs(), keep_in_all),
    ("Wanda, within rows", 128, importance, keep_in_rows),
    ("Wanda, over the matrix", 128, importance, keep_in_all),
    ("Wanda, 512 calibration rows", 512, importance, keep_in_rows),
    ("Wanda, the norm's root", 128, lambda w, norms: importance(w, norms.sqrt()), keep_in_rows),
)
ROUNDED = (
    ("to nearest", None, 128, 32),
    ("AWQ", "all", 128, 32),
    ("AWQ, 512 calibration rows", "all", 512, 32),
    ("AWQ, norms alone", "norms", 128, 32),
    ("AWQ, other places alone", "others", 128, 32),
    ("to nearest, groups of 16", None, 128, 16),
    ("AWQ, groups of 16", "all", 128, 16),
)
"""What it's called, where it's rescaled, calibration rows, group size."""


def main(arguments: list[str] | None = None) -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(prog="python -m examples.compression.attempts")
    of_text = parser.add_mutually_exclusive_group(required=True)
    of_text.add_argument("--table", type=Path, help="what the table's --out was")
    of_text.add_argument("--model", type=Path, help="a student in its place")
    parser.add_argument("--dataset", type=Path, help="the student's rows")
    parser.add_argument("--rows", type=int, default=100, help="validation rows that are measured")
    given = parser.parse_args(arguments)
    if (given.model is None) != (given.dataset is None):
        parser.error("--model and --dataset go together")
    torch.set_num_threads(1)
    source = given.model or given.table / "train/model"
    dataset = given.dataset or given.table / "dataset"
    train = encoded(source, dataset, "train")
    held = encoded(source, dataset, "validation")[: given.rows]
    start = load_model(source)
    print(
        f"uncompressed: {nats(start, held):.4f} nats a token\n\n| mask | 0.5 | 0.7 |\n|---|---|---|"
    )
    for name, count, score, keep in MASKS:
        found = []
        for sparsity in (0.5, 0.7):
            model = load_model(source)
            mask(model, spread(train, count), score, keep, sparsity)
            found.append(f"{nats(model, held):.4f}")
        print(f"| {name} | {' | '.join(found)} |", flush=True)
    print("\n| 4 bits | error of the linears' outputs | KL |\n|---|---|---|")
    for name, where, count, group in ROUNDED:
        model = load_model(source)
        lost = round_all(model, spread(train, count), where, group)
        read = read_rows(model, start, held, 16)
        print(f"| {name} | {lost:,.0f} | {sum(read.kl) / sum(read.tokens):.4f} |", flush=True)


def encoded(
    source: Path, dataset: Path, split: Literal["train", "validation"]
) -> tuple[TokenRow, ...]:
    """All rows of a split."""
    tokenizer = load_tokenizer(source)
    ends = end_ids(load_model(source), tokenizer)
    return encode(read_records(dataset, split), tokenizer, 256, ends).rows


def nats(model: PreTrainedModel, rows: Sequence[TokenRow]) -> float:
    """Cross-entropy a token."""
    read = read_rows(model, None, rows, 16)
    return sum(read.nats) / sum(read.tokens)


def mask(
    model: PreTrainedModel, rows: Sequence[TokenRow], score: Score, keep: Keep, sparsity: float
) -> None:
    """As Wanda goes, through what is pruned already, with any score compared anywhere."""
    for layer in find_layers(model).layers:
        linears, squares = find_linears(layer), dict[str, Tensor]()

        def see(name: str, x: Tensor, real: Tensor, squares: dict[str, Tensor] = squares) -> None:
            squares[name] = squares.get(name, 0) + x[real].double().square().sum(dim=0)

        observe(model, linears, rows, see, until=layer)
        for name, linear in linears.items():
            scores = score(linear.weight.detach(), squares[name].sqrt())
            linear.weight.data.mul_(keep(scores, sparsity, "unstructured"))


@torch.no_grad()
def round_all(
    model: PreTrainedModel, rows: Sequence[TokenRow], where: str | None, group: int
) -> float:
    """Rescale what `where` names as AWQ does, round every linear; the squared error of what the
    linears give on the rows, where AWQ could have lowered it."""
    anatomy = find_anatomy(model)
    folds, choose, lost = find_folds(model, anatomy), awq(FOUR, group), 0.0
    for index, moments in enumerate(list(collect(model, rows))):
        layer = model.get_submodule(anatomy.layer(index))
        for fold in folds:
            found = moments[fold.readers[0]]
            weights = [
                layer.get_submodule(n).get_parameter("weight").double() for n in fold.readers
            ]
            chosen = where == "all" or (where is not None and (where == "norms") == fold.norm)
            s = choose(weights, found) if chosen else torch.ones_like(found.mean_abs)
            lost += sum(rounding_loss(w, rtn(w * s, FOUR, group) / s, found.gram) for w in weights)
            if chosen:
                rescale(layer, fold, s)
    for linear in targets_of(model).values():
        linear.weight.copy_(rtn(linear.weight, FOUR, group))
    return lost


if __name__ == "__main__":
    main()
