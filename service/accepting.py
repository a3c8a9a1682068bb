"""A rejected row as the record that a person makes of it, and what forbids that."""

import json

from prompts.dataset.likeness import Judge, contamination
from prompts.overlap import EvaluationSet, evaluation_texts
from prompts.plan import content_hash
from prompts.record import Reason, Record, Rejected
from prompts.seeds import scan_seeds
from prompts.spec import AskedBuild, Shots
from prompts.split import input_key, split_of
from prompts.tables import file_lines
from prompts.template import compile_template
from service.problems import Fault, Problem, bad_input
from service.site import Site
from service.tables import Artifact


def not_acceptable(row: Rejected, spec: AskedBuild | None) -> str | None:
    """Why a row can't be accepted; None if it can. `spec`: of the build that it is of, None where
    it wasn't built here."""
    if row.reason == Reason.CONTAMINATED:
        return f"it holds something of the evaluation set ({row.detail})"
    if not row.prompt or not (row.completion or row.raw):
        return "nothing was answered"
    if not row.completion:
        return "which of its raw texts is its answer is not known, if one is; build it again"
    return None if spec is not None else "it wasn't built here: its split is unknown"


def accepted_by_hand(row: Rejected, spec: AskedBuild) -> Record:
    """The row as the record that its own answer makes, in the split that its input has in any
    build. It must be acceptable."""
    template = compile_template(spec.template, demonstrations=isinstance(spec, Shots))
    return Record(
        id=row.id,
        kind=row.kind,
        prompt=row.prompt,
        completion=row.completion,
        tools=row.tools,
        answer=row.answer,
        gold=row.gold,
        reasoning=row.rationale,
        demo_ids=row.demo_ids,
        split=split_of(input_key(template, json.loads(row.seed)), spec.split),
        teacher=row.teacher,
        teacher_revision=row.teacher_revision,
        sampling=row.sampling,
        finish_reason=row.finish_reason or "stop",
        usage=row.usage,
        confidence=row.confidence,
        hinted=row.hinted,
        flags=row.flags,
        judgements=row.judgements,
        content_hash=content_hash(row.prompt, row.completion),
        seed=row.seed,
    )


def leak_guard(site: Site, spec: AskedBuild | None) -> Judge | None:
    """What looks at rows that a person accepts: they never met the checks of the whole dataset.
    None where the build named no evaluation set. Raises a 422 problem if that can't be read."""
    named = spec.decontaminate if spec is not None else None
    if named is None:
        return None
    with site.sessions.reading() as session:
        file = session.get(Artifact, named)
    try:
        if file is None:
            raise ValueError("it was deleted")
        lines = file_lines(site.store.path(file), file.name)
        rows = (row for _, row in scan_seeds(lines))
        return contamination(EvaluationSet(file.name, evaluation_texts(rows)))
    except (ValueError, Problem) as error:
        why = f"the build's evaluation set {named!r} can't be read: {error}"
        raise bad_input([Fault("verdicts", f"nothing can be accepted: {why}")]) from error
