"""What a stage may lose, and what happens when it loses more."""

import math

from trainer.compress.report import ModelFacts, ServingComparison, StageReport
from trainer.measurement import Distance, Measurement
from trainer.report.gap import mean_difference
from trainer.spec import Gate


class GateFailed(Exception):  # noqa: N818  # an outcome, not a fault
    """A stage lost more than its gate allows: the chain ends, what was made stays on disk.

    The command line turns it into an `error` event and exit code 3.
    """

    def __init__(self, report: StageReport) -> None:
        self.report = report
        self.title = f"stage {report.index} ({report.kind}) did not pass its gate"
        self.detail = (
            f"{' '.join(report.failures)} The model is kept at {report.model}. Let the stage do "
            "less, give it a heal, or widen its gate."
        )
        super().__init__(f"{self.title}: {self.detail}")


def find_failures(
    gate: Gate,
    before: ModelFacts,
    after: ModelFacts,
    kl_from_source: float | None,
    from_source: Distance | None = None,
) -> list[str]:
    """Why the stage does not pass, a sentence each; empty where it does. The figures as measured
    decide, their intervals are told."""
    failures = []
    if kl_from_source is not None and not math.isfinite(kl_from_source):
        failures.append("Its outputs are not finite: KL from the model before is no number.")
    if gate.max_accuracy_drop is not None and before.measurement and after.measurement:
        was, now = before.measurement.mean_accuracy, after.measurement.mean_accuracy
        if was - now > gate.max_accuracy_drop:
            failures.append(
                f"Mean accuracy fell from {was:.3f} to {now:.3f}, by {was - now:.3f}; "
                f"max_accuracy_drop is {gate.max_accuracy_drop}. "
                f"{_of_the_drop(gate.max_accuracy_drop, before.measurement, after.measurement)}"
            )
    if gate.max_kl is not None and kl_from_source is not None and kl_from_source > gate.max_kl:
        failures.append(
            f"KL from the model before is {kl_from_source:.4f} nats per token; max_kl is "
            f"{gate.max_kl}.{_of_the_kl(gate.max_kl, from_source)}"
        )
    return failures


def _of_the_drop(limit: float, before: Measurement, after: Measurement) -> str:
    """The drop's interval, and what it leaves open."""
    skills = [name for name in after.skills if name in before.skills]
    found = mean_difference(*([one.skills[name] for name in skills] for one in (after, before)))
    low, high = -found.high, -found.low
    asked = sum(after.skills[name].n for name in skills)
    said = f"The drop's 95% interval is {low:.3f} to {high:.3f} over {asked} questions"
    if low <= 0:
        return f"{said}: it may be chance alone; ask more."
    if low <= limit:
        return f"{said}: chance may have taken it past the bound; ask more."
    return f"{said}."


def _of_the_kl(limit: float, found: Distance | None) -> str:
    if found is None or found.kl is None:
        return ""
    said = f" Its 95% interval is {found.kl.low:.4f} to {found.kl.high:.4f}"
    if found.kl.low <= limit:
        return f"{said} over {found.kl.rows} rows: chance may have taken it past the bound."
    return f"{said}."


def ungated(gate: Gate, after: ModelFacts) -> tuple[str, ...]:
    """What the gate was to look at and had nothing to look at."""
    if gate.max_accuracy_drop is not None and after.measurement is None:
        return ("the gate did not look at accuracy: there are no evaluation rows",)
    return ()


def find_serving_failures(serving: ServingComparison | None, note: str) -> list[str]:
    """Why the export does not count; a check that could not be made is no failure."""
    if serving is None:
        return [note] if note.startswith(FAILED) else []
    if serving.passed:
        return []
    return [
        f"vLLM answers differently: log-probabilities differ by "
        f"{serving.mean_logprob_difference:.4f} nats on average, {serving.limit} is allowed."
    ]


FAILED = "vLLM could not serve it"
