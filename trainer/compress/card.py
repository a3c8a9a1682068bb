"""A model card beside what a stage made: what was done to it, and what was measured."""

from pathlib import Path

from trainer.compress.gate import FAILED
from trainer.compress.report import ModelFacts, StageReport

NAME = "README.md"


def card(report: StageReport) -> str:
    """Markdown with what a hub reads of it in front; no path of this machine."""
    tags = ", ".join(("retort", "compression", report.kind))
    before, after = _figures(report.before), _figures(report.after)
    rows = [f"| {name} | {before.get(name, '-')} | {value} |" for name, value in after.items()]
    healed = ""
    if report.heal is not None:
        healed = f", then healed by {report.heal.steps} steps of {report.heal.method}"
    lines = [
        *("---", "library_name: transformers", f"tags: [{tags}]", "---", ""),
        *(f"# {Path(report.source).name}, {report.label}", ""),
        f"Made by Retort: stage {report.index}, {report.kind}{healed}.",
        "",
        *("| figure | before | after |", "|---|--:|--:|", *rows, ""),
        *(f"- {note}" for note in _notes(report)),
    ]
    return "\n".join(lines) + "\n"


def _figures(facts: ModelFacts) -> dict[str, str]:
    shape, measured = facts.shape, facts.measurement
    found = {
        "parameters": f"{shape.parameters:,}",
        "parameters not zero": f"{shape.nonzero:,}",
        "layers": f"{shape.layers}",
        "bytes of weights": f"{shape.weight_bytes:,}",
    }
    if facts.kl_from_start is not None:
        found["KL from the first model, nats per token"] = f"{facts.kl_from_start:.4f}"
    if measured is not None:
        for skill, one in measured.skills.items():
            found[f"accuracy, {skill}"] = f"{one.share:.1%} ({one.low:.1%} to {one.high:.1%})"
        found["tokens/s in transformers"] = f"{measured.tokens_per_s:,.0f}"
    return found


def _notes(report: StageReport) -> list[str]:
    # Behind FAILED comes the end of a log, with paths of this machine.
    lost = [why for why in report.failures if not why.startswith(FAILED)]
    notes, compared = [*report.notes, *lost], report.serving
    if compared is None:
        why = FAILED if report.serving_note.startswith(FAILED) else report.serving_note
        return [*notes, f"vLLM: {why}."]
    if compared.passed:
        notes.append(
            f"{compared.vllm_version} answers alike: log-probabilities differ by "
            f"{compared.mean_logprob_difference:.4f} nats on average over {compared.prompts} "
            f"prompts, {compared.equal_completions:.1%} of completions are equal; "
            f"{compared.vllm_tokens_per_s:,.0f} tokens/s."
        )
    return notes
