"""A teacher in the trainer's process."""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trainer.batch import Batch
from trainer.device import training_device
from trainer.errors import BadInput
from trainer.events import Emit
from trainer.loading import check_weights, load_model, load_tokenizer
from trainer.methods.method import Setting
from trainer.narrow import DTYPES, narrow, place
from trainer.objectives import Head, keep
from trainer.packing import check_packing
from trainer.spec import WithTeacher
from trainer.student import PLAIN, Look, Seen, check_head, check_size, head_of, look


@dataclass(frozen=True)
class Teacher:
    """A model that is asked and never trained."""

    model: PreTrainedModel

    @property
    def head(self) -> Head:
        """Its last linear map."""
        return head_of(self.model)

    @torch.no_grad()
    def look(self, batch: Batch, wanted: Look = PLAIN) -> Seen:
        """A forward pass up to the head."""
        return look(self.model, batch, wanted)

    def kept(self, batch: Batch, seen: Seen | None = None) -> Tensor:
        """[K, D'] hidden states of a batch's kept positions."""
        hidden = (seen or self.look(batch)).hidden
        return keep(hidden, batch.input_ids, batch.completion_mask)[0]


def load_teacher(spec: WithTeacher, setting: Setting) -> Teacher:
    """Beside the student; its vocabulary has been looked at (`check_teacher`)."""
    setting.emit("phase", {"name": "teacher", "detail": f"loading {spec.teacher}"})
    load = spec.teacher_load
    model = load_model(spec.teacher, dtype=DTYPES[load.dtype])
    check_weights(spec.teacher, model)
    check_head(model)
    if spec.one_vocabulary:
        check_size("teacher", model, setting.tokenizer)
        if spec.optimization.packing:
            check_packing("teacher", model)
    model.requires_grad_(False)
    if load.bits is not None:
        narrow(model, load.bits)
    place(model, load, training_device())
    return Teacher(model)


def check_teacher(spec: WithTeacher, student: PreTrainedTokenizerBase, emit: Emit) -> None:
    """Before any weights are loaded: BadInput where the teacher must have the student's vocabulary
    and hasn't; a warning where its chat template is another."""
    theirs = load_tokenizer(spec.teacher)
    if not spec.one_vocabulary:
        return
    check_vocabularies(student, theirs)
    if student.chat_template != theirs.chat_template:
        told = "teacher and student have different chat templates; the student's writes rows"
        emit("warning", {"detail": told})


REMEDY = "use uld or sequence_level, or a student of the teacher's family"


def check_vocabularies(
    student: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase, remedy: str = REMEDY
) -> None:
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
            f"A KL needs one vocabulary: {remedy}.",
        )
    if _special(student) != _special(teacher):
        raise BadInput(
            "student and teacher have different special tokens",
            f"Student: {_special(student)}; teacher: {_special(teacher)}. Give both the same, or "
            f"{remedy}.",
        )


def _special(tokenizer: PreTrainedTokenizerBase) -> dict[str, str]:
    """The pad token is left out: masks go by position, so it never matters."""
    tokens = tokenizer.special_tokens_map
    return {name: str(token) for name, token in sorted(tokens.items()) if name != "pad_token"}
