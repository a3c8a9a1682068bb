"""How a student is trained, by `method`: which rows, what else is needed, and the loss."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from prompts.record import Kind, Record
from trainer.errors import BadInput
from trainer.events import Emit
from trainer.loading import load_model, load_tokenizer
from trainer.objectives import Term, cross_entropy_term, divergence_term, keep
from trainer.objectives.divergences import forward
from trainer.spec import ForwardKL, RationaleThenAnswer, SequenceLevel
from trainer.student import Objective, check_head, head_of, last_hidden


@dataclass(frozen=True)
class Method:
    """One method: two functions, of the rows and of its own spec."""

    select: Callable[[Sequence[Record]], list[Record]]
    """The rows it learns from; BadInput where the dataset has none of them."""
    objective: Callable[[Any, PreTrainedModel, PreTrainedTokenizerBase, Emit], Objective]
    """(its spec, student, tokenizer, emit): loads what it needs; BadInput where that won't fit."""


@dataclass(frozen=True)
class CrossEntropy:
    """Cross-entropy with the tokens of the completion."""

    def terms(
        self, input_ids: Tensor, completion_mask: Tensor, targets: Tensor
    ) -> dict[str, tuple[float, Term]]:
        return {"cross_entropy": (1.0, cross_entropy_term(targets))}


@dataclass(frozen=True)
class TeacherDivergence:
    """(1 - w) * divergence from a teacher in this process + w * cross-entropy."""

    kind: str
    teacher: PreTrainedModel
    kd_temperature: float
    cross_entropy_weight: float

    def terms(
        self, input_ids: Tensor, completion_mask: Tensor, targets: Tensor
    ) -> dict[str, tuple[float, Term]]:
        with torch.no_grad():
            hidden = last_hidden(self.teacher, input_ids)
        kept, _ = keep(hidden, input_ids, completion_mask)
        head = head_of(self.teacher)
        share = self.cross_entropy_weight
        divergence = divergence_term(forward, kept, head, self.kd_temperature)
        terms = {self.kind: (1.0 - share, divergence)}
        if share > 0:
            terms["cross_entropy"] = (share, cross_entropy_term(targets))
        return terms


def select_rationales(records: Sequence[Record]) -> list[Record]:
    """Complete chain-of-thought rows; BadInput where there are none."""
    rows = [row for row in _complete(records) if row.kind is Kind.COT and row.reasoning]
    if not rows:
        kinds = sorted({row.kind.value for row in records})
        raise BadInput(
            "rationale_then_answer needs chain-of-thought rows",
            f"The train split has {len(records)} rows of kind {', '.join(kinds) or 'none'}, and "
            "none of kind cot with a rationale. Build a cot dataset, or use sequence_level.",
        )
    return rows


def select_all(records: Sequence[Record]) -> list[Record]:
    """Every complete row; BadInput where there are none."""
    rows = _complete(records)
    if not rows:
        raise BadInput(
            "the dataset has no row to train on",
            f"Its train split has {len(records)} rows, none with a complete answer. Look at the "
            "reasons of its rejected rows.",
        )
    return rows


def hard_targets(
    spec: RationaleThenAnswer | SequenceLevel,
    student: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    emit: Emit,
) -> Objective:
    """Cross-entropy needs nothing beside the student."""
    return CrossEntropy()


def towards_teacher(
    spec: ForwardKL, student: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, emit: Emit
) -> Objective:
    """Loads the teacher beside the student; BadInput where their vocabularies differ."""
    emit("phase", {"name": "teacher", "detail": f"loading {spec.teacher}"})
    teacher_tokenizer = load_tokenizer(spec.teacher)
    check_vocabularies(tokenizer, teacher_tokenizer)
    if tokenizer.chat_template != teacher_tokenizer.chat_template:
        detail = "teacher and student have different chat templates; the student's writes the rows"
        emit("warning", {"detail": detail})
    teacher = load_model(spec.teacher)
    check_head(teacher)
    _check_sizes(len(tokenizer), {"student": student, "teacher": teacher})
    teacher.requires_grad_(False)
    nn.Module.to(teacher, student.device)
    return TeacherDivergence("forward_kl", teacher, spec.kd_temperature, spec.cross_entropy_weight)


def check_vocabularies(student: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase) -> None:
    """A KL compares token by token, so every token must have the same id on both sides.

    Sizes say nothing: maps and special tokens are compared. BadInput names what differs.
    """
    ours, theirs = student.get_vocab(), teacher.get_vocab()
    differing = sorted(
        token for token in ours.keys() | theirs.keys() if ours.get(token) != theirs.get(token)
    )
    if differing:
        shown = ", ".join(f"{t!r} ({ours.get(t)}, {theirs.get(t)})" for t in differing[:5])
        raise BadInput(
            "student and teacher have different vocabularies",
            f"{len(differing)} tokens differ (id in the student, in the teacher): {shown}. "
            "A KL needs one vocabulary: use sequence_level, or a student of the teacher's family.",
        )
    if _special(student) != _special(teacher):
        raise BadInput(
            "student and teacher have different special tokens",
            f"Student: {_special(student)}; teacher: {_special(teacher)}. Give both the same, or "
            "use sequence_level.",
        )


METHODS: dict[str, Method] = {
    "rationale_then_answer": Method(select_rationales, hard_targets),
    "sequence_level": Method(select_all, hard_targets),
    "forward_kl": Method(select_all, towards_teacher),
}


def _special(tokenizer: PreTrainedTokenizerBase) -> dict[str, str]:
    """The pad token is left out: masks go by position, so it never matters."""
    tokens = tokenizer.special_tokens_map
    return {name: str(token) for name, token in sorted(tokens.items()) if name != "pad_token"}


def _complete(records: Sequence[Record]) -> list[Record]:
    """A completion that met its token limit teaches to stop in the middle."""
    return [row for row in records if row.finish_reason != "length"]


def _check_sizes(tokens: int, models: dict[str, PreTrainedModel]) -> None:
    for name, model in models.items():
        rows = head_of(model).weight.shape[0]
        if rows < tokens:
            raise BadInput(
                f"the {name}'s head has fewer rows than the tokenizer has tokens",
                f"{rows} against {tokens}. Resize its embeddings and save it again.",
            )
