"""What a stage may lose, and what happens when it loses more."""

import math

from trainer.compress.report import ModelFacts, ServingComparison, StageReport
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
    gate: Gate, before: ModelFacts, after: ModelFacts, kl_from_source: float | None
) -> list[str]:
    """Why the stage does not pass, a sentence each; empty where it does."""
    failures = []
    if kl_from_source is not None and not math.isfinite(kl_from_source):
        failures.append("Its outputs are not finite: KL from the model before is no number.")
    if gate.max_accuracy_drop is not None and before.measurement and after.measurement:
        was, now = before.measurement.mean_accuracy, after.measurement.mean_accuracy
        if was - now > gate.max_accuracy_drop:
            failures.append(
                f"Mean accuracy fell from {was:.3f} to {now:.3f}, by {was - now:.3f}; "
                f"max_accuracy_drop is {gate.max_accuracy_drop}."
            )
    if gate.max_kl is not None and kl_from_source is not None and kl_from_source > gate.max_kl:
        failures.append(
            f"KL from the model before is {kl_from_source:.4f} nats per token; max_kl is "
            f"{gate.max_kl}."
        )
    return failures


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
