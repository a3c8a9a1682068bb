"""From problems to tensors. B rows, T tokens (padded on the right)."""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from examples.demo import world
from examples.demo.tokenizer import render

# Answers in context are one or two tokens, reasoning is forty: without this, the gradient of a
# step would hardly know that there are other skills than stories.
TOKEN_WEIGHTS: dict[world.Skill, float] = {"cot": 1.0, "icl": 4.0, "if": 3.0}


@dataclass(frozen=True)
class Batch:
    """Token ids [B, T] and loss weights [B, T]; `weights[b, t]` belongs to `ids[b, t]`."""

    ids: Tensor
    weights: Tensor


def encode(
    problems: list[world.Problem], tokenizer: PreTrainedTokenizerFast
) -> list[tuple[list[int], list[float]]]:
    """Each problem's token ids and the loss weight of each of them."""
    rendered = [render(problem) for problem in problems]
    # Padding for generation leaves the backend padding everything it encodes from then on.
    tokenizer.backend_tokenizer.no_padding()
    encodings = tokenizer.backend_tokenizer.encode_batch([text for text, _ in rendered])
    rows = []
    for problem, (_, ranges), encoding in zip(problems, rendered, encodings, strict=True):
        weight = TOKEN_WEIGHTS[problem.skill]
        kept = [
            weight if any(start <= first < stop for start, stop in ranges) else 0.0
            for first, _ in encoding.offsets
        ]
        rows.append((encoding.ids, kept))
    return rows


def make_batches(
    problems: list[world.Problem], tokenizer: PreTrainedTokenizerFast, parts: int
) -> list[Batch]:
    """The problems in `parts` batches of like length, so that little of them is padding."""
    rows = sorted(encode(problems, tokenizer), key=lambda row: len(row[0]))
    # Cut where the tokens, not the rows, are shared out evenly.
    total = sum(len(ids) for ids, _ in rows)
    cuts: list[list[tuple[list[int], list[float]]]] = [[] for _ in range(parts)]
    passed = 0
    for row in rows:
        cuts[min(parts - 1, passed * parts // total)].append(row)
        passed += len(row[0])
    pad = tokenizer.pad_token_id
    return [_pad(cut, int(pad)) for cut in cuts if cut]


def _pad(rows: list[tuple[list[int], list[float]]], pad: int) -> Batch:
    width = max(len(ids) for ids, _ in rows)
    return Batch(
        ids=torch.tensor([ids + [pad] * (width - len(ids)) for ids, _ in rows]),
        weights=torch.tensor([kept + [0.0] * (width - len(kept)) for _, kept in rows]),
    )
