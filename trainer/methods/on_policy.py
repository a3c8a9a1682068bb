"""Distillation on the student's own answers (arXiv:2306.13649)."""

from functools import partial

import torch
from torch import Tensor
from transformers import PreTrainedModel

from trainer.batch import Batch
from trainer.methods.method import Setting
from trainer.methods.off_policy import towards
from trainer.methods.teacher import load_teacher
from trainer.objectives import DIVERGENCES
from trainer.rollout import Drawing, Sample, answered, draw
from trainer.spec import MiniLLM, OnPolicy, ServedKL
from trainer.student import (
    Losses,
    Moment,
    Objective,
    Passes,
    Seen,
    Student,
    Wrapped,
    gathered,
    known_tokens,
)
from trainer.vllm_student import VllmStudent, check_drift, check_padding, serve_student

COIN, TEXT = 0, 1
"""What a step's random numbers are for, answers aside."""


def gkd(spec: OnPolicy, setting: Setting) -> Objective:
    """A divergence from the teacher on the student's answers, or on the rows, by lambda's coin.

    No gradient goes through the sampling (section 3).
    """
    teacher = load_teacher(spec, setting)
    drawing = drawing_of(spec, setting, spec.sampling_temperature, teacher=teacher.model)
    divergence = DIVERGENCES[spec.divergence.kind](spec.divergence)

    def losses(seen: Seen, targets: Tensor, batch: Batch) -> Losses:
        term = towards(teacher, divergence, teacher.kept(batch), spec.kd_temperature)
        return Losses({spec.divergence.kind: (1.0, term)})

    return Objective(losses, own_answers_of(spec, drawing, setting))


def own_answers_of(spec: OnPolicy | ServedKL, drawing: Drawing, setting: Setting) -> Passes:
    """In a share of steps, the student's own answers to the rows' prompts in place of the rows."""
    server = _server(spec, drawing, setting)

    def passes(student: Wrapped, batches: list[Batch], moment: Moment) -> list[Batch]:
        if not own_answers(spec.student_share, moment):
            return batches
        if server is not None:
            student(lambda one: server.follow(one.model))
            return [_served(student, batch, drawing, setting, moment, server) for batch in batches]
        return [_answered(student, batch, drawing, setting, moment) for batch in batches]

    return passes


def _server(spec: OnPolicy | ServedKL, drawing: Drawing, setting: Setting) -> VllmStudent | None:
    if spec.vllm is None:
        return None
    check_padding(setting.model, drawing)
    setting.emit("phase", {"name": "vllm", "detail": "starting a server of the student"})
    return setting.closing.enter_context(
        serve_student(
            spec.vllm,
            setting.model,
            setting.tokenizer,
            setting.end_ids,
            setting.max_length,
            spec.optimization.precision,
        )
    )


def own_answers(share: float, moment: Moment) -> bool:
    """Lambda's coin: the same on every rank."""
    everywhere = Moment(moment.step, moment.seed, 0)
    return float(torch.rand((), generator=everywhere.generator(COIN))) < share


def drawing_of(
    spec: OnPolicy | MiniLLM | ServedKL,
    setting: Setting,
    temperature: float = 1.0,
    teacher_mix: float = 0.0,
    teacher: PreTrainedModel | None = None,
) -> Drawing:
    """Answers end where their own prompt leaves no more room: there is some behind every prompt,
    since every row has an answer. A long prompt doesn't shorten the answers to others. Only tokens
    are drawn, and only those that the teacher in the process knows."""
    shortest = min(row.prompt_tokens for row in setting.rows)
    most = min(spec.max_new_tokens, setting.max_length - shortest)
    known = known_tokens(setting.tokenizer, setting.model, *([teacher] if teacher else []))
    return Drawing(most, temperature, spec.samples, teacher_mix, setting.max_length, known)


def sample(
    student: Student,
    batch: Batch,
    drawing: Drawing,
    end_ids: frozenset[int],
    moment: Moment,
    teacher: PreTrainedModel | None = None,
) -> list[Sample]:
    """Answers to a batch's prompts: a task of the student's, dropout off."""
    student.model.eval()
    prompts = [row.ids[: row.prompt_tokens].tolist() for row in batch.rows]
    names = [row.row for row in batch.rows]
    chances = moment.chances(names, drawing.samples, drawing.max_new_tokens)
    with gathered(student.model):
        made = draw(student.model, prompts, drawing, end_ids, chances, teacher)
    student.model.train()
    return made


def no_answers(student: Student) -> None:
    """What a rank without rows of its own asks for: wrappers exchange buffers or weights in every
    forward, so each rank must make as many."""
    with gathered(student.model):
        pass


def _answered(
    student: Wrapped, batch: Batch, drawing: Drawing, setting: Setting, moment: Moment
) -> Batch:
    if not batch.kept:
        student(no_answers)
        return batch
    task = partial(sample, batch=batch, drawing=drawing, end_ids=setting.end_ids, moment=moment)
    made: list[Sample] = student(task)
    rows = [answered(batch.rows[one.prompt], one.ids) for one in made]
    return setting.lay(rows).to(batch.input_ids.device)


def _served(
    student: Wrapped,
    batch: Batch,
    drawing: Drawing,
    setting: Setting,
    moment: Moment,
    server: VllmStudent,
) -> Batch:
    prompts = [row.ids[: row.prompt_tokens].tolist() for row in batch.rows]
    # A seed for each answer: the first of its chances.
    chances = moment.chances([row.row for row in batch.rows], drawing.samples, 1)
    seeds = (chances.squeeze(1) * 2**31).long().tolist()
    made = server.draw(prompts, drawing, seeds)
    if server.must_check():
        student(lambda one: check_drift(one.model, prompts, made))
    rows = [answered(batch.rows[one.prompt], one.ids) for one in made]
    return setting.lay(rows).to(batch.input_ids.device)
