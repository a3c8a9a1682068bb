"""What a model can do and what it costs: held-out questions, speed, bytes, distance."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from prompts.parse import parse_answer
from prompts.spec import CotBuild
from prompts.verify import gold_answer, same_number
from trainer.compress.size import count_parameters
from trainer.data import TokenRow, collate, render_prompts
from trainer.device import at_work, place_of
from trainer.errors import BadInput
from trainer.generation import Answers, answer_greedily
from trainer.loading import (
    NO_LIMIT,
    check_weights,
    end_ids,
    held_tokens,
    load_model,
    load_tokenizer,
    weight_files,
)
from trainer.measurement import Accuracy, Measurement, wilson
from trainer.memory import model_peak, restart_peak
from trainer.objectives import capped, forward_kl, keep, upcast
from trainer.spec import EvalRow, EvalSpec, read_rows
from trainer.student import last_hidden, soft_cap

_ANSWER: str = CotBuild.model_fields["answer_pattern"].default


@dataclass(frozen=True)
class Answered:
    """A question, and what a model said to it."""

    row: EvalRow
    text: str
    right: bool


def measure(
    model_dir: str | Path,
    spec: EvalSpec,
    threads: int | None = None,
    strict: bool = False,
) -> Measurement:
    """Measure a model directory on the rows of `spec.data`, greedily.

    Raises BadInput for what isn't a model or an evaluation file; where `strict`, also for weights
    that are no numbers: of a stage's model, its gate tells that.
    """
    return examine(model_dir, spec, threads, strict)[0]


def examine(
    model_dir: str | Path,
    spec: EvalSpec,
    threads: int | None = None,
    strict: bool = False,
) -> tuple[Measurement, tuple[Answered, ...]]:
    """`measure`, and the answers that it counted, in order of the rows."""
    if threads is not None:
        torch.set_num_threads(threads)
    read_rows(Path(spec.data), spec.limit_per_skill)  # before a model is loaded for them
    tokenizer = load_tokenizer(model_dir)
    model = load_model(model_dir)
    if strict:
        check_weights(model_dir, model)
    return examine_loaded(model_dir, model, tokenizer, spec)


def examine_loaded(
    model_dir: str | Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    spec: EvalSpec,
) -> tuple[Measurement, tuple[Answered, ...]]:
    """`examine`, of a directory whose model is loaded already."""
    rows = read_rows(Path(spec.data), spec.limit_per_skill)
    with at_work(model):
        resting = restart_peak(model.device)
        answers = _ask(model, tokenizer, rows, spec)
        peak = model_peak(model, resting, model.device)
    answered = _judged(rows, answers, tokenizer)
    measurement = Measurement(
        model=str(model_dir),
        skills=_skills(answered),
        parameters=count_parameters(model),
        weight_bytes=sum(path.stat().st_size for path in weight_files(model_dir)),
        generated_tokens=answers.tokens,
        seconds=answers.seconds,
        tokens_per_s=answers.tokens_per_s,
        prefill_tokens_per_s=answers.prefill_tokens_per_s,
        decode_tokens_per_s=answers.decode_tokens_per_s,
        peak_memory_bytes=peak,
        cut=answers.cut,
    )
    return measurement, answered


def is_right(row: EvalRow, text: str) -> bool:
    """Whether an answer passes its row's check."""
    if row.check == "numeric":
        said = parse_answer(text, _ANSWER).answer
        return same_number(_last_line(text) if said is None else said, gold_answer(row.answer))
    if row.check == "exact_last_line":
        return _last_line(text) == row.answer.strip()
    return text.strip() == row.answer.strip()


@dataclass(frozen=True)
class Said:
    """What a model says of rows, as far as its head: less than the model is, and as good for a KL.
    K completion tokens of a batch, D width."""

    hidden: tuple[Tensor, ...]
    """[K, D] of each batch, on the CPU as all here: a GPU holds the head while it is used."""
    head: nn.Module
    """Called as a module, so that packed and factorized models are measured as they run."""
    cap: float | None
    targets: tuple[Tensor, ...]
    """[K] tokens that came, of each batch."""
    owners: tuple[Tensor, ...]
    """[K] which of the rows, as they were given, each is of."""
    rows: int

    def logits(self, batch: int) -> Tensor:
        """[K, V]"""
        hidden = self.hidden[batch].to(place_of(self.head))
        return capped(upcast(self.head(hidden)), self.cap)


@torch.inference_mode()
def listen(model: PreTrainedModel, rows: Sequence[TokenRow], batch_size: int = 16) -> Said:
    """One pass over all rows, the shortest first."""
    hidden, targets, owners = [], [], []
    by_length = sorted(range(len(rows)), key=lambda index: len(rows[index].ids))
    with at_work(model):
        for start in range(0, len(by_length), batch_size):
            part = by_length[start : start + batch_size]
            batch = collate([rows[index] for index in part])
            ids, mask = batch["input_ids"], batch["completion_mask"]
            made = last_hidden(model, ids.to(model.device))
            kept, came = keep(made.cpu(), ids, mask)
            hidden.append(kept)
            targets.append(came)
            owners.append(torch.tensor(part)[mask[:, 1:].nonzero()[:, 0]])
    head, cap = model.get_output_embeddings(), soft_cap(model)
    return Said(tuple(hidden), head, cap, tuple(targets), tuple(owners), len(rows))


def mean_kl(
    reference: PreTrainedModel,
    model: PreTrainedModel,
    rows: Sequence[TokenRow],
    batch_size: int = 16,
) -> tuple[float, int]:
    """Mean KL(reference || model) in nats per completion token, and over how many tokens."""
    return compare(*(listen(each, rows, batch_size) for each in (reference, model))).mean_kl


@dataclass(frozen=True)
class Compared:
    """What a model says of rows beside what another does: sums over the completion tokens of each
    row, [R] in fp64."""

    tokens: Tensor
    nats: Tensor
    """-log p of the tokens that came, of the model."""
    kl: Tensor
    """KL(reference || model)."""
    agreed: Tensor
    """Tokens where both find the same one likeliest."""

    @property
    def mean_kl(self) -> tuple[float, int]:
        """In nats per completion token, and over how many tokens."""
        tokens = int(self.tokens.sum())
        return (float(self.kl.sum()) / tokens if tokens else 0.0), tokens


@torch.inference_mode()
def compare(reference: Said, model: Said) -> Compared:
    """Of two models on the same rows, row by row."""
    found = [torch.zeros(model.rows, dtype=torch.float64) for _ in range(4)]
    with at_work(reference.head, model.head):
        for batch, targets in enumerate(model.targets):
            ours, theirs = model.logits(batch), reference.logits(batch)
            for sums, values in zip(found, _apart(ours, theirs, targets), strict=True):
                sums.index_add_(0, model.owners[batch], values.cpu().double())
    return Compared(*found)


def _apart(ours: Tensor, theirs: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
    """What `Compared` sums, of each position: logits [K, V], [K, V'], targets [K] -> [K] each."""
    nats = torch.nn.functional.cross_entropy(ours, targets.to(ours.device), reduction="none")
    size = min(ours.shape[-1], theirs.shape[-1])
    ours, theirs = ours[:, :size], theirs[:, :size]
    agreed = ours.argmax(-1) == theirs.argmax(-1)
    return torch.ones_like(nats), nats, forward_kl(ours, theirs, 1.0), agreed


def _ask(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[EvalRow],
    spec: EvalSpec,
) -> Answers:
    positions = held_tokens(model)
    prompts = fitting_prompts(rows, tokenizer, positions)
    ends, held = end_ids(model, tokenizer), NO_LIMIT if positions is None else positions
    return answer_greedily(model, prompts, spec.max_new_tokens, spec.batch_size, ends, held)


def fitting_prompts(
    rows: Sequence[EvalRow], tokenizer: PreTrainedTokenizerBase, positions: int | None
) -> list[list[int]]:
    """Token ids of the questions; BadInput where a model of so many positions has no room."""
    prompts = render_prompts([row.prompt for row in rows], tokenizer)
    for row, prompt in zip(rows, prompts, strict=True):
        if positions is not None and len(prompt) >= positions:
            raise BadInput(
                f"evaluation row {row.id} doesn't fit the model",
                f"Its prompt has {len(prompt)} tokens, the model holds {positions}.",
            )
    return prompts


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else ""


def _judged(
    rows: Sequence[EvalRow], answers: Answers, tokenizer: PreTrainedTokenizerBase
) -> tuple[Answered, ...]:
    texts = [str(tokenizer.decode(list(ids), skip_special_tokens=True)) for ids in answers.ids]
    return tuple(
        Answered(row, text, is_right(row, text)) for row, text in zip(rows, texts, strict=True)
    )


def _skills(answered: Sequence[Answered]) -> dict[str, Accuracy]:
    right: dict[str, list[bool]] = defaultdict(list)
    for one in answered:
        right[one.row.skill].append(one.right)
    return {skill: wilson(sum(each), len(each)) for skill, each in sorted(right.items())}
