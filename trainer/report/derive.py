"""What follows from a chain's facts: the headline, the verdicts, the totals."""

from prompts.record import Frozen
from trainer.report import text
from trainer.report.chain import Chain, Part
from trainer.report.figures import MEAN, ModelFigures, find, model_figures, skill_names
from trainer.report.sweeps import Sweep, find_sweeps
from trainer.report.table import Verdict, summary_table, verdict


class Derived(Frozen):
    """Everything that the page says and the chain does not hold as such."""

    headline: str
    detail: str
    """The second sentence: what compression made of the student; empty without stages."""
    skills: tuple[str, ...]
    models: tuple[ModelFigures, ...]
    smallest: str | None
    """Id of the smallest model that met its gate, if it has fewer bytes than the student."""
    verdicts: tuple[Verdict, ...]
    """By the rule of the demo, for each distilled skill."""
    sweeps: tuple[Sweep, ...]
    """Stages at several ratios: which are worth their bytes."""
    table: list[dict[str, str]]
    """`summary_table`, for terminals."""
    input_rows: int | None
    accepted_share: float | None
    """Of the rows that were asked, 0..1."""
    seconds: float | None
    """Wall time from the first part's start to the last one's end."""


def derive(chain: Chain) -> Derived:
    """All derived figures, computed once, shown everywhere from here."""
    models = model_figures(chain)
    smallest = _smallest(models)
    asked = _asked(chain)
    return Derived(
        headline=_headline(chain, models),
        detail=_detail(chain, smallest),
        skills=skill_names(chain),
        models=models,
        smallest=smallest.id if smallest else None,
        verdicts=tuple(verdict(chain, skill) for skill in chain.distilled),
        sweeps=find_sweeps(models, chain),
        table=summary_table(chain, models),
        input_rows=asked + sum(chain.dataset.not_needed.values()) if chain.dataset else None,
        accepted_share=chain.dataset.accepted / asked if chain.dataset and asked else None,
        seconds=_elapsed(chain.parts),
    )


def part_seconds(part: Part) -> float | None:
    """Wall time of a part, as told or as the difference of its times."""
    if part.seconds is not None:
        return part.seconds
    if part.started_at is None or part.finished_at is None:
        return None
    return (part.finished_at - part.started_at).total_seconds()


def _headline(chain: Chain, models: tuple[ModelFigures, ...]) -> str:
    student = next((model for model in models if model.role == "student"), None)
    if student is None:
        return "This chain trained no student."
    skill = chain.distilled[0] if chain.distilled else MEAN
    over = f"On {skill}" if chain.distilled else "Over the mean of its skills"
    sizes = ""
    if student.bytes_of_teacher is not None:
        sizes = f", with {text.ratio(student.bytes_of_teacher)} the teacher's bytes"
    closed = student.gap_closed.get(skill)
    if closed is None and not chain.distilled and len(student.gap_closed) == 1:
        skill, closed = next(iter(student.gap_closed.items()))
        over = f"On {skill}"
    if closed is None:
        return f"{over}, the gap closed is not known: {_unknown(chain, skill)}."
    if closed.share is None:
        return f"{over}, there was no gap to close: the teacher is no better than the base."
    interval = f" ({closed.why})"
    if closed.low is not None and closed.high is not None:
        interval = f" (95% interval {text.percent(closed.low)} to {text.percent(closed.high)})"
    return (
        f"{over}, the student closes {text.percent(closed.share)}{interval} of the gap between its "
        f"base{_share(models, 'base', skill)} and the teacher{_share(models, 'teacher', skill)}"
        f"{sizes}."
    )


def _unknown(chain: Chain, skill: str) -> str:
    lacking = [
        role
        for role in ("teacher", "base", "student")
        if (row := find(chain, role)) is None or row.measurement is None
    ]
    if lacking:
        return f"no measurement of {', '.join(lacking)}"
    return f"{skill} was not measured for teacher, base and student alike"


def _share(models: tuple[ModelFigures, ...], role: str, skill: str) -> str:
    model = next(model for model in models if model.role == role)
    if skill == MEAN:
        return f" ({text.percent(model.mean_accuracy)})" if model.mean_accuracy is not None else ""
    return f" ({text.percent(model.skills[skill].share)})"


def _smallest(models: tuple[ModelFigures, ...]) -> ModelFigures | None:
    student = next((model.weight_bytes for model in models if model.role == "student"), None)
    stages = [
        (model.weight_bytes, place, model)
        for place, model in enumerate(models)
        if model.role == "stage" and model.passed and model.weight_bytes is not None
    ]
    smaller = [found for found in stages if student is None or found[0] < student]
    return min(smaller)[2] if smaller else None


def _detail(chain: Chain, smallest: ModelFigures | None) -> str:
    if smallest is None:
        stages = [row for row in chain.models if row.role == "stage"]
        return "No stage that met its gate made the student smaller." if stages else ""
    skill = chain.distilled[0] if chain.distilled else next(iter(smallest.skills), None)
    size = text.size(smallest.weight_bytes or 0)
    compared = ""
    if smallest.bytes_of_teacher is not None:
        compared = f", {text.ratio(smallest.bytes_of_teacher)} the teacher's bytes"
    measured = smallest.skills.get(skill) if skill else None
    right = f"answers {text.accuracy(measured)} of {skill} rightly" if measured else "is unmeasured"
    return f"The smallest model that met its gate, {smallest.label}, {right} in {size}{compared}."


def _asked(chain: Chain) -> int:
    return chain.dataset.accepted + sum(chain.dataset.rejected.values()) if chain.dataset else 0


def _elapsed(parts: tuple[Part, ...]) -> float | None:
    starts = [part.started_at for part in parts if part.started_at]
    ends = [part.finished_at for part in parts if part.finished_at]
    return (max(ends) - min(starts)).total_seconds() if starts and ends else None
