"""An on-policy step (GKD at lambda 1): answers drawn from the student, then forward and backward
pass on them, against the way trl's GKD goes: transformers' `generate` on padded prompts until the
longest answer is done, and dense logits of prompts, answers and padding.

Where trl is installed its own functions stand beside both, and the ratio is to them. Then there
is the drawing of MiniLLM's answers, teacher mixed in. Seconds are per 1,000 tokens drawn: the sides
draw from one distribution, not the same answers.
"""

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, LlamaForCausalLM

from benchmarks.pairs import (
    dense_step,
    make_model,
    make_rows,
    stepped,
    towards_teacher,
    trl_backward,
)
from benchmarks.peer import Trl, find_trl
from benchmarks.place import ON_GPU, PLACE, timed
from benchmarks.result import Result
from trainer.batch import pad
from trainer.data import TokenRow
from trainer.generation import left_padded
from trainer.rollout import Drawing, Sample, answered, draw
from trainer.student import Student

TARGET = 5.0
FULL = (1024, 152_000, 32, 3) if ON_GPU else (256, 9_600, 32, 5)
"""The student's width (the teacher's is double), the vocabulary, rows, rounds."""
TIES = 2 if ON_GPU else 0
"""Rows whose nearly equal tokens rounding may order otherwise, in fp32 on a GPU."""
MEAN_ANSWER = 24
"""Tokens: so that lengths differ as answers' do, one token in so many ends an answer."""


def run(quick: bool) -> Result:
    """The ratio at the longest answers; growth over the limit of new tokens."""
    shape = (64, 960, 8, 2) if quick else FULL
    growth = [measure(limit, *shape) for limit in ((8, 16) if quick else (32, 128))]
    last = growth[-1]
    return Result(
        name="rollout",
        ours=last["ours_s"],
        unit="s per 1,000 tokens drawn",
        ratio=last["ratio"],
        target=f">= {TARGET} x as fast as generate and dense logits",
        met=last["ratio"] >= TARGET,
        peer=last.get("trl_s", last["dense_s"]),
        growth=growth,
    )


def measure(limit: int, width: int, vocabulary: int, count: int, rounds: int) -> dict[str, float]:
    """Medians over interleaved rounds. Nearly cold, both sides must draw the same answers."""
    model, teacher = make_model(width, 4, vocabulary, 0), make_model(2 * width, 4, vocabulary, 1)
    rows = make_rows(count, vocabulary, 96)
    ends = frozenset(range(8, vocabulary, MEAN_ANSWER))
    student = Student(model, towards_teacher(teacher))
    require_equal(model, rows, limit, ends)
    sides: dict[str, Callable[[torch.Generator], int]] = {
        "ours": partial(ours, student, rows, limit, ends),
        "drawing": partial(drawing, model, None, rows, limit, ends),
        "dense": partial(dense, model, teacher, rows, limit, ends),
        "mixed": partial(drawing, model, teacher, rows, limit, ends),
    }
    peer = find_trl()
    if peer is not None:
        sides["trl"] = partial(trl, peer, model, teacher, rows, limit, ends)
    costs: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        for name, side in sides.items():
            seconds, tokens = counted(partial(side, torch.Generator().manual_seed(number)))
            costs[name].append(1_000 * seconds / tokens)
    against = "dense" if peer is None else "trl"
    ratios = [a / b for a, b in zip(costs[against], costs["ours"], strict=True)]
    medians = {f"{name}_s": statistics.median(found) for name, found in costs.items()}
    return {"max_new_tokens": limit, "rows": count, **medians, "ratio": statistics.median(ratios)}


def counted(act: Callable[[], int]) -> tuple[float, int]:
    """Seconds of a step and the tokens that it says it drew."""
    drawn: list[int] = []
    return timed(lambda: drawn.append(act())), drawn[0]


def ours(
    student: Student,
    rows: list[TokenRow],
    limit: int,
    ends: frozenset[int],
    generator: torch.Generator,
) -> int:
    """A step; the tokens that it drew."""
    even, prompts, wanted = chances(rows, limit, generator), _prompts(rows), Drawing(limit)
    samples: list[Sample] = student(lambda one: draw(one.model, prompts, wanted, ends, even))
    batch = pad([answered(rows[one.prompt], one.ids) for one in samples]).to(PLACE)
    stepped(student, batch)
    return batch.kept


def dense(
    model: LlamaForCausalLM,
    teacher: LlamaForCausalLM,
    rows: list[TokenRow],
    limit: int,
    ends: frozenset[int],
    generator: torch.Generator,
) -> int:
    """The same by `generate` and dense logits."""
    torch.manual_seed(generator.initial_seed())
    made = generated(model, rows, limit, ends, sampling=True)
    drawn = pad([answered(row, ids) for row, ids in zip(rows, made, strict=True)]).to(PLACE)
    dense_step(model, teacher, drawn)
    return drawn.kept


def trl(
    peer: Trl,
    model: LlamaForCausalLM,
    teacher: LlamaForCausalLM,
    rows: list[TokenRow],
    limit: int,
    ends: frozenset[int],
    generator: torch.Generator,
) -> int:
    """The same by trl's GKD: its drawing, its mask, its loss."""
    ids, mask = left_padded(_prompts(rows), model.device)
    asked = {"prompts": ids, "prompt_attention_mask": mask}
    config = GenerationConfig(
        max_new_tokens=limit, do_sample=True, top_k=0, eos_token_id=sorted(ends), pad_token_id=0
    )
    torch.manual_seed(generator.initial_seed())
    with torch.no_grad():
        made = peer.gkd.generate_on_policy_outputs(model, asked, config)
    inputs = dict(zip(("input_ids", "attention_mask", "labels"), made, strict=True))
    trl_backward(peer, model, teacher, inputs)
    return int((inputs["labels"] >= 0).sum())


def drawing(
    model: LlamaForCausalLM,
    teacher: LlamaForCausalLM | None,
    rows: list[TokenRow],
    limit: int,
    ends: frozenset[int],
    generator: torch.Generator,
) -> int:
    """Drawing alone, with the teacher mixed in where there is one; the tokens drawn."""
    wanted = Drawing(limit, teacher_mix=0.2 if teacher else 0.0)
    even = chances(rows, limit, generator)
    samples = draw(model, _prompts(rows), wanted, ends, even, teacher)
    return sum(len(one.ids) for one in samples)


def require_equal(
    model: LlamaForCausalLM, rows: list[TokenRow], limit: int, ends: frozenset[int]
) -> None:
    """Raises AssertionError where our answers, nearly cold, aren't those of `generate`."""
    dtype = model.dtype
    model.float()  # in bf16 the likeliest token often is a tie
    ours, theirs = cold(model, rows, limit, ends), greedy(model, rows, limit, ends)
    nn.Module.to(model, dtype)
    if len(ours) != len(theirs) or sum(a != b for a, b in zip(ours, theirs, strict=True)) > TIES:
        raise AssertionError("the two sides generate different answers")


def cold(
    model: LlamaForCausalLM, rows: list[TokenRow], limit: int, ends: frozenset[int]
) -> list[list[int]]:
    """Answers at a temperature at which the likeliest token is as good as sure."""
    drawing = Drawing(limit, temperature=1e-5)
    even = chances(rows, limit, torch.Generator().manual_seed(0))
    made = draw(model, _prompts(rows), drawing, ends, even)
    return [one.ids for one in made]


def greedy(
    model: LlamaForCausalLM, rows: list[TokenRow], limit: int, ends: frozenset[int]
) -> list[list[int]]:
    """Answers of `generate`."""
    return generated(model, rows, limit, ends, sampling=False)


@torch.no_grad()
def generated(
    model: LlamaForCausalLM,
    rows: list[TokenRow],
    limit: int,
    ends: frozenset[int],
    sampling: bool,
) -> list[list[int]]:
    """Answers up to their first end token, by the library."""
    ids, mask = left_padded(_prompts(rows), model.device)
    library: Any = model  # its types don't let a model be its own `self`
    made: Tensor = library.generate(
        input_ids=ids,
        attention_mask=mask,
        max_new_tokens=limit,
        do_sample=sampling,
        top_k=0 if sampling else None,
        eos_token_id=sorted(ends),
        pad_token_id=0,
    )
    return [_until_end(row, ends) for row in made[:, ids.shape[1] :].tolist()]


def chances(rows: list[TokenRow], limit: int, generator: torch.Generator) -> Tensor:
    """What decides the draws."""
    made: Tensor = torch.rand(len(rows), limit, generator=generator, dtype=torch.float64)
    return made


def _prompts(rows: list[TokenRow]) -> list[list[int]]:
    return [row.ids[: row.prompt_tokens].tolist() for row in rows]


def _until_end(ids: list[int], ends: frozenset[int]) -> list[int]:
    stop = next((place for place, token in enumerate(ids) if token in ends), len(ids) - 1)
    return ids[: stop + 1]
