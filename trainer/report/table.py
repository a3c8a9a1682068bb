"""The chain in one terminal table, and the rule that says whether distilling worked."""

from prompts.record import Frozen
from trainer.measurement import Accuracy
from trainer.report import text
from trainer.report.chain import Chain
from trainer.report.figures import ModelFigures, find, measurement, model_figures, skill_names
from trainer.report.gap import gap_closed

ROLES = ("teacher", "base", "student")


class Verdict(Frozen):
    """Whether the student learned one skill, by numbers fixed beforehand. Shares are 0..1."""

    passed: bool
    skill: str
    base: float | None = None
    student: float | None = None
    student_low: float | None = None
    """Lower end of the student's 95% interval."""
    teacher: float | None = None
    gain: float | None = None
    """`student_low` minus `base`: the gain that is left at the interval's lower end."""
    min_gain: float
    gap_closed: float | None = None
    min_gap_closed: float
    sentence: str


def summary_table(
    chain: Chain, models: tuple[ModelFigures, ...] | None = None
) -> list[dict[str, str]]:
    """One row per model, column title -> text, all rows with the same titles.

    `models` saves deriving them again where the caller has them.
    """
    skills = skill_names(chain)
    return [_row(model, skills) for model in models or model_figures(chain)]


def verdict(
    chain: Chain, skill: str, min_gain: float = 0.15, min_gap_closed: float = 0.40
) -> Verdict:
    """Passed if the lower end of the student's interval lies `min_gain` above the base's measured
    accuracy and the student closes `min_gap_closed` of the gap between base and teacher."""
    found = _found(chain, skill)
    lacking = [role for role in ROLES if role not in found]
    if lacking:
        return Verdict(
            passed=False,
            skill=skill,
            min_gain=min_gain,
            min_gap_closed=min_gap_closed,
            sentence=f"No verdict on {skill}: not measured for {', '.join(lacking)}.",
        )
    teacher, base, student = (found[role] for role in ROLES)
    closed = gap_closed([student], [base], [teacher]).share
    gain = student.low - base.share
    silent = Verdict(
        passed=gain >= min_gain and closed is not None and closed >= min_gap_closed,
        skill=skill,
        base=base.share,
        student=student.share,
        student_low=student.low,
        teacher=teacher.share,
        gain=gain,
        min_gain=min_gain,
        gap_closed=closed,
        min_gap_closed=min_gap_closed,
        sentence="",
    )
    return silent.model_copy(update={"sentence": _sentence(silent, base.share, student.low, gain)})


def _found(chain: Chain, skill: str) -> dict[str, Accuracy]:
    return {
        role: measured.skills[skill]
        for role in ROLES
        if (row := find(chain, role))
        and (measured := measurement(row))
        and skill in measured.skills
    }


def _sentence(found: Verdict, base: float, low: float, gain: float) -> str:
    closed = "no gap to close, since the teacher is no better than the base"
    if found.gap_closed is not None:
        closed = (
            f"{text.percent(found.gap_closed)} of the gap to the teacher closed "
            f"(needed: {text.percent(found.min_gap_closed)})"
        )
    return (
        f"{'Passed' if found.passed else 'Failed'} on {found.skill}: the student's interval starts "
        f"at {text.percent(low)}, {text.points(gain)} points from its base's "
        f"{text.percent(base)} (needed: {text.points(found.min_gain)}); {closed}."
    )


def _row(model: ModelFigures, skills: tuple[str, ...]) -> dict[str, str]:
    name = f"{model.label} (stopped by its gate)" if model.passed is False else model.label
    row = {"model": name}
    for skill in skills:
        measured = model.skills.get(skill)
        row[skill] = text.accuracy(measured) if measured else text.DASH
    row["parameters"] = (
        text.DASH if model.parameters is None else text.short_count(model.parameters)
    )
    row["bytes"] = text.DASH if model.weight_bytes is None else text.size(model.weight_bytes)
    row["tokens/s"] = text.DASH if model.tokens_per_s is None else text.speed(model.tokens_per_s)
    return row
