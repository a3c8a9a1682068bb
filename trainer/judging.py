"""Answers to a dataset's own prompts, judged: by its completions' words, and by its verifier."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import TypeAdapter, ValidationError

from prompts.likeness import rouge_l
from prompts.parse import parse_answer
from prompts.record import Kind, Record
from prompts.spec import BuildSpec, CotBuild, IclBuild
from prompts.verify import Verifier, VerifierSpec, VerifyError, make_verifier
from prompts.verify.spec import NoVerifier
from trainer.measurement import Estimate, bootstrap

NOTHING_TO_COMPARE = "no row has an answer to compare with"


@dataclass(frozen=True)
class Checks:
    """How a dataset's answers are found and compared."""

    spec: VerifierSpec
    pattern: str
    """Where a chain of thought has its answer."""


@dataclass(frozen=True)
class Verdict:
    """What a verifier says of a row's answer."""

    right: bool
    problem: str = ""
    """Why it could not compare; such an answer counts as wrong."""


@dataclass(frozen=True)
class Judged:
    """Answers to rows of a dataset."""

    exact_match: Estimate
    rouge_l: Estimate
    accuracy: Estimate | None
    why: str
    """Why there is no accuracy."""
    uncompared: int
    """Answers that the verifier failed to compare."""
    right: tuple[bool, ...]
    """By row: as the verifier says; as the words say where it wasn't asked."""


def checks_of(dataset: Path, verify: VerifierSpec | None = None) -> Checks:
    """What is asked for, else what the dataset was built with, else equality of words."""
    build, pattern = None, str(CotBuild.model_fields["answer_pattern"].default)
    path = dataset / "recipe.yaml"
    if path.is_file():
        try:
            job = yaml.safe_load(path.read_text("utf-8")) or {}
            build = TypeAdapter[BuildSpec](BuildSpec).validate_python(job.get("build"))
        except (yaml.YAMLError, ValidationError):
            build = None  # of an import, or another version's: it says nothing of answers
    if isinstance(build, CotBuild):
        pattern = build.answer_pattern
    own = build.verify if isinstance(build, CotBuild | IclBuild) else NoVerifier()
    return Checks(verify or own, pattern)


def verifier_or_why(checks: Checks) -> tuple[Verifier | None, str]:
    """None, and why: a function of somebody's own is not run here."""
    try:
        return make_verifier(checks.spec), ""
    except VerifyError as error:
        return None, f"the dataset's answers are compared by {checks.spec.kind}: {error}"


def judge(
    records: Sequence[Record],
    texts: Sequence[str],
    checks: Checks,
    verifier: Verifier | None,
    resamples: int,
) -> Judged:
    """`texts` are the answers, in order of the records. Without a verifier words alone are
    compared."""
    said = [record.completion[-1].content.strip() for record in records]
    pairs = list(zip(texts, said, strict=True))
    equal = [one == other for one, other in pairs]
    verdicts = [_asked(*each, checks, verifier) for each in zip(records, texts, strict=True)]
    found = [one for one in verdicts if one is not None]
    failed = [one.problem for one in found if one.problem]
    why = NOTHING_TO_COMPARE if not found else ""
    if failed and len(failed) == len(found):
        why = f"the verifier failed on all {len(failed)} answers: {failed[0]}"
    right = [float(one.right) for one in found]
    return Judged(
        exact_match=_mean([float(one) for one in equal], resamples),
        rouge_l=_mean([rouge_l(one, other) for one, other in pairs], resamples),
        accuracy=None if why else _mean(right, resamples),
        why=why,
        uncompared=len(failed),
        right=tuple(
            same if one is None else one.right for one, same in zip(verdicts, equal, strict=True)
        ),
    )


def find_answer(record: Record, text: str, pattern: str) -> str | None:
    """The answer in a reply: of a chain of thought what its pattern holds, else all of it."""
    if record.kind is Kind.COT:
        return parse_answer(text, pattern).answer
    return text or None


def verdict_of(record: Record, text: str, checks: Checks, verifier: Verifier) -> Verdict:
    """Whether the verifier takes a reply's answer for the gold one, or for the row's where there
    is no gold. What can't be found or compared is wrong."""
    try:
        answer = find_answer(record, text, checks.pattern)
        if answer is None:
            return Verdict(False)
        if record.gold is not None and verifier.right is not None:
            return Verdict(verifier.right(answer, record.gold))
        return Verdict(verifier.same(answer, record.gold or record.answer or ""))
    except ValueError as error:  # a VerifyError; a pattern, or a gold one, that is none or too slow
        return Verdict(False, str(error))


def _asked(record: Record, text: str, checks: Checks, verifier: Verifier | None) -> Verdict | None:
    """None for a row that has nothing to compare with."""
    if verifier is None or (record.gold is None and record.answer is None):
        return None
    return verdict_of(record, text, checks, verifier)


def _mean(values: Sequence[float], resamples: int) -> Estimate:
    return bootstrap(values, [1.0] * len(values), resamples)
