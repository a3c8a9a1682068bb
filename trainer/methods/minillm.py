"""MiniLLM: reverse KL of whole answers by policy gradient (arXiv:2306.08543).

K kept positions.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from trainer.batch import Batch, pad
from trainer.methods.hard import cross_entropy_losses
from trainer.methods.method import Fitting, Setting
from trainer.methods.off_policy import towards
from trainer.methods.on_policy import TEXT, drawing_of, no_answers, sample
from trainer.methods.teacher import Teacher, load_teacher
from trainer.methods.text import check_text, read_text
from trainer.objectives import weighted
from trainer.objectives.divergences import reverse
from trainer.objectives.policy import policy_term, returns
from trainer.rollout import Drawing, Sample, answered
from trainer.spec import MiniLLM
from trainer.student import Losses, Moment, Objective, Seen, Wrapped

COLUMNS = ("advantage", "old_logprob", "importance")


def minillm(spec: MiniLLM, setting: Setting) -> Objective:
    """One update per step: answers are drawn, then learnt from, then thrown away."""
    text = read_text(spec.text, setting) if spec.text is not None else ()
    teacher = load_teacher(spec, setting)
    drawing = drawing_of(spec, setting, teacher_mix=spec.teacher_mix, teacher=teacher.model)

    def passes(student: Wrapped, batches: list[Batch], moment: Moment) -> list[Batch]:
        made = [
            _drawn(spec, student, batch, drawing, setting, teacher, moment) for batch in batches
        ]
        if text:
            chosen = chosen_text(len(text), setting.batch_size, moment)
            texts = pad([text[i] for i in chosen]).to(batches[0].input_ids.device)
            made.append(replace(texts, share="text"))
        return made

    def losses(seen: Seen, targets: Tensor, batch: Batch) -> Losses:
        if batch.share == "text":
            made = cross_entropy_losses(seen, targets, batch).terms["cross_entropy"]
            return Losses({"text": (spec.text_weight, made[1])})
        if not batch.columns:
            return cross_entropy_losses(seen, targets, batch)
        return _policy_losses(spec, teacher, targets, batch)

    return Objective(losses, passes)


def check_its_text(spec: MiniLLM, fitting: Fitting) -> None:
    """The text is there, where one is named; BadInput otherwise."""
    if spec.text is not None:
        check_text(spec.text)


def chosen_text(count: int, batch_size: int, moment: Moment) -> list[int]:
    """This rank's share of a step's texts: `batch_size` for each rank, as one rank of as many would
    take."""
    everywhere = replace(moment, rank=0)
    drawn = torch.randint(
        count, (batch_size * moment.ranks,), generator=everywhere.generator(TEXT)
    ).tolist()
    return [int(number) for number in drawn[moment.rank :: moment.ranks]]


def _policy_losses(spec: MiniLLM, teacher: Teacher, targets: Tensor, batch: Batch) -> Losses:
    columns = batch.columns
    importance = columns["importance"]
    policy = policy_term(
        targets, columns["advantage"], columns["old_logprob"], importance, spec.clip
    )
    terms = {"policy": (1.0, policy)}
    if spec.single_step:
        # Equation 5: the exact gradient of E[r_t] over the vocabulary, weighed as the rest.
        exact = towards(teacher, reverse, teacher.kept(batch), 1.0)
        terms["reverse_kl"] = (1.0, weighted(exact, importance))
    return Losses(terms)


def _drawn(
    spec: MiniLLM,
    student: Wrapped,
    batch: Batch,
    drawing: Drawing,
    setting: Setting,
    teacher: Teacher,
    moment: Moment,
) -> Batch:
    if not batch.kept:  # a rank without rows of its own: the same terms, of nothing
        student(no_answers)
        nothing = torch.zeros(0, device=batch.input_ids.device)
        return replace(batch, columns=dict.fromkeys(COLUMNS, nothing))
    task = partial(
        sample,
        batch=batch,
        drawing=drawing,
        end_ids=setting.end_ids,
        moment=moment,
        teacher=teacher.model,
    )
    samples: list[Sample] = student(task)
    rows = [answered(batch.rows[one.prompt], one.ids) for one in samples]
    laid = setting.lay(rows)
    # Packing changes the rows' order; they are the same objects.
    of_row = {id(row): one for row, one in zip(rows, samples, strict=True)}
    columns = columns_of(spec, [of_row[id(row)] for row in laid.rows])
    return replace(laid, columns=columns).to(batch.input_ids.device)


def columns_of(spec: MiniLLM, samples: Sequence[Sample]) -> dict[str, Tensor]:
    """What the policy gradient needs of each token drawn: [K] each, constants of the step."""
    advantages = []
    for one in samples:
        rewards = torch.tensor(one.teacher) - torch.tensor(one.student)
        advantages.append(
            returns(rewards, spec.discount, spec.length_normalization, own=not spec.single_step)
        )
    student = _flat([one.student for one in samples])
    return {
        "advantage": torch.cat(advantages),
        "old_logprob": student,
        # q / mixture, per token (section 2.2, teacher-mixed sampling).
        "importance": (student - _flat([one.drawn_from for one in samples])).exp(),
    }


def _flat(parts: Sequence[Sequence[float]]) -> Tensor:
    return torch.from_numpy(np.concatenate([np.asarray(part, np.float32) for part in parts]))
