"""Forward and backward pass of an off-policy KL step, packed, against a plain step of fine-tuning
plus the teacher's forward pass. No way with the teacher in the process does without those two.

Beside them: a step on a stored top-k signal (at hand in memory: reading it is what `signal` times)
against the plain step alone, the step as trl's GKD computes it, padded and dense, and trl's own
where it is installed.
"""

import statistics
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from benchmarks.pairs import dense_step, make_model, make_rows, stepped, towards_teacher, trl_step
from benchmarks.peer import find_trl
from benchmarks.place import ON_GPU, PLACE, timed
from benchmarks.result import Result
from trainer.batch import Batch, pack, pad
from trainer.methods.hard import cross_entropy_losses
from trainer.methods.teacher import Teacher
from trainer.objectives.divergences import forward, tempered
from trainer.objectives.stored import outcomes, top_k_term
from trainer.student import Losses, Objective, Seen, Student

TARGET = 1.25
STORED_TARGET = 1.1
TOLERANCE = 1e-2 if ON_GPU else 1e-4
"""Of the loss, relative: packed and padded rows are added up in another order, in bf16 on a GPU."""
TOP_K = 16
FULL = (1024, 152_000, 512) if ON_GPU else (256, 16_000, 256)
"""The student's width (the teacher's is double), the vocabulary, tokens of a sequence at most."""


def run(quick: bool) -> Result:
    """The ratio at the most tokens; growth over rows."""
    shape = (64, 1_000, 64) if quick else FULL
    growth = [measure(rows, *shape, 2 if quick else 5) for rows in ((4, 8) if quick else (8, 32))]
    last = growth[-1]
    return Result(
        name="kd_step",
        ours=last["ours_s"],
        unit="s a step",
        ratio=last["ratio"],
        target=f"<= {TARGET} x plain step + teacher's forward; stored <= {STORED_TARGET} x plain",
        met=last["ratio"] <= TARGET and last["stored_ratio"] <= STORED_TARGET,
        peer=last.get("trl_s", last["dense_s"]),
        limit=last["floor_s"],
        growth=growth,
    )


def measure(count: int, width: int, vocabulary: int, longest: int, rounds: int) -> dict[str, float]:
    """Medians over interleaved rounds, in seconds. Ours and the dense way must give one loss."""
    model, teacher = make_model(width, 4, vocabulary, 0), make_model(2 * width, 4, vocabulary, 1)
    rows = make_rows(count, vocabulary, longest)
    packed, padded = pack(rows, longest).to(PLACE), pad(rows).to(PLACE)
    distilled = Student(model, towards_teacher(teacher))
    plain, stored = (
        Student(model, Objective(cross_entropy_losses)),
        Student(model, on_signal(teacher, packed)),
    )
    sides: dict[str, Callable[[], object]] = {
        "ours": lambda: stepped(distilled, packed),
        "floor": lambda: (stepped(plain, packed), answered(teacher, packed)),
        "plain": lambda: stepped(plain, packed),
        "stored": lambda: stepped(stored, packed),
        "dense": lambda: dense_step(model, teacher, padded),
    }
    peer = find_trl()
    if peer is not None:
        sides["trl"] = partial(trl_step, peer, model, teacher, padded)
    found, known = stepped(distilled, packed), dense_step(model, teacher, padded)
    others = [known] if peer is None else [known, trl_step(peer, model, teacher, padded)]
    if any(abs(found - other) > TOLERANCE * other for other in others):
        raise AssertionError("the sides compute different losses")
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            times[name].append(timed(side))
    medians = {f"{name}_s": statistics.median(found) for name, found in times.items()}
    return {
        "rows": count,
        "tokens": sum(len(row.ids) for row in rows),
        "learnt": packed.kept,
        **medians,
        "ratio": _ratio(times, "ours", "floor"),
        "stored_ratio": _ratio(times, "stored", "plain"),
        "dense_ratio": _ratio(times, "dense", "ours"),
        **({} if peer is None else {"trl_ratio": _ratio(times, "trl", "ours")}),
    }


def on_signal(teacher: LlamaForCausalLM, batch: Batch) -> Objective:
    """The teacher's top k with the tail, recorded beforehand."""
    log_p = tempered(answered(teacher, batch), 1.0)
    top = log_p.topk(TOP_K)
    tail = outcomes(log_p, top.indices)[:, -1]
    kept = top_k_term(forward, top.indices, top.values, tail, 1.0)

    def losses(seen: Seen, targets: Tensor, batch: Batch) -> Losses:
        return Losses({"forward_kl": (1.0, kept)})

    return Objective(losses)


@torch.no_grad()
def answered(teacher: LlamaForCausalLM, batch: Batch) -> Tensor:
    """[K, V] logits of the kept positions."""
    held = Teacher(teacher)
    return held.head.logits(held.kept(batch))


def _ratio(times: dict[str, list[float]], one: str, other: str) -> float:
    return statistics.median(a / b for a, b in zip(times[one], times[other], strict=True))
