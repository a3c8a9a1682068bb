"""In-context learning distillation (arXiv:2212.10670): a soft and a hard in-context loss, plus a
language-model loss on the prompts."""

import json
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from prompts.record import Message, Record
from prompts.template import compile_template
from trainer.batch import Batch, pad
from trainer.data import TokenRow, TokenRows, encode
from trainer.errors import BadInput
from trainer.methods.hard import cross_entropy_losses
from trainer.methods.method import Encode, Setting
from trainer.methods.off_policy import mixed, towards
from trainer.methods.teacher import load_teacher
from trainer.methods.text import whole_row
from trainer.objectives.divergences import forward
from trainer.spec import MetaIct, MultitaskIct
from trainer.student import Losses, Moment, Objective, Seen, Wrapped


def in_context(spec: MetaIct | MultitaskIct, setting: Setting) -> Objective:
    """The teacher sees the demonstrations; whether the student does, its rows say."""
    teacher = load_teacher(spec, setting)
    demonstrated = _demonstrated(spec, setting)

    def passes(student: Wrapped, batches: list[Batch], moment: Moment) -> list[Batch]:
        if spec.language_model_weight == 0:
            return batches
        return [*batches, *(_prompts(batch, demonstrated) for batch in batches)]

    def losses(seen: Seen, targets: Tensor, batch: Batch) -> Losses:
        if batch.share == "text":
            made = cross_entropy_losses(seen, targets, batch).terms["cross_entropy"]
            return Losses({"language_model": (spec.language_model_weight, made[1])})
        theirs = pad([demonstrated[row.row] for row in batch.rows]).to(batch.input_ids.device)
        kept = teacher.kept(theirs) if batch.kept else teacher.kept(batch)
        term = towards(teacher, forward, kept, spec.kd_temperature)
        return Losses(mixed("forward_kl", term, targets, spec.hard_weight))

    return Objective(losses, passes)


def bare_rows(spec: MultitaskIct, records: Sequence[Record], encode: Encode) -> TokenRows:
    """The same answers to the queries alone, their demonstrations taken away. A row that is too
    long with them, as the teacher sees it, is left out and counted."""
    shown = encode(records)
    fits = {row.row for row in shown.rows}
    made = encode([_bare(spec, record) for record in records if record.id in fits])
    return replace(made, too_long=shown.too_long + made.too_long, longest=shown.longest)


def _bare(spec: MultitaskIct, record: Record) -> Record:
    template = compile_template(spec.query_template, demonstrations=True)
    query = template.render(json.loads(record.seed), ())
    last = record.prompt[-1]
    if not query or not str(last.content).endswith(query) or query == last.content:
        raise BadInput(
            f"query_template doesn't give the end of row {record.id}'s prompt",
            f"It gives {query[-80:]!r}, the prompt ends {str(last.content)[-80:]!r}. Name the "
            "template that the dataset was built with.",
        )
    alone = Message(role=last.role, content=query)
    return record.model_copy(update={"prompt": (*record.prompt[:-1], alone)})


def _demonstrated(spec: MetaIct | MultitaskIct, setting: Setting) -> dict[str, TokenRow]:
    """By row id, the row as the teacher sees it."""
    if isinstance(spec, MetaIct):
        return {row.row: row for row in setting.rows}
    chosen = {row.row for row in setting.rows}
    records = [record for record in setting.records if record.id in chosen]
    made = encode(records, setting.tokenizer, setting.max_length, setting.end_ids)
    found = {row.row: row for row in made.rows}
    for row in setting.rows:
        other = found.get(row.row)
        ours = row.ids[row.prompt_tokens :].tolist()
        if other is None or other.ids[other.prompt_tokens :].tolist() != ours:
            raise BadInput(
                f"row {row.row} doesn't fit the teacher's side",
                "Behind its demonstrations its answer has other tokens than behind the query "
                "alone. Mend the student's chat template.",
            )
    return found


def _prompts(batch: Batch, demonstrated: dict[str, TokenRow]) -> Batch:
    """The demonstrations and queries themselves, learnt as text."""
    rows = []
    for row in batch.rows:
        full = demonstrated[row.row]
        whole = whole_row(row.row, full.ids[: full.prompt_tokens].tolist())
        rows.append(replace(whole, weight=row.weight))
    made = replace(pad(rows), share="text").to(batch.input_ids.device)
    if not batch.kept:
        silent = torch.zeros_like(made.completion_mask)
        made = replace(made, completion_mask=silent)
    return made
