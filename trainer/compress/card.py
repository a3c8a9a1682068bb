"""A model card beside what a stage made: what was done to it, and what was measured."""

from collections.abc import Sequence
from pathlib import Path

from trainer.compress.gate import FAILED
from trainer.compress.report import ModelFacts, ServingComparison, StageReport
from trainer.compress.settings import settings
from trainer.measurement import Estimate

NAME = "README.md"


def card(report: StageReport, earlier: Sequence[StageReport] = ()) -> str:
    """Markdown with what a hub reads of it in front; no path of this machine. `earlier` are the
    chain's reports so far, of which some made what this stage worked on."""
    stages = lineage(report, earlier)
    start = _name(stages[0].source)
    changed = " + ".join(stage.label for stage in stages if stage.kind != "evaluate")
    tags = ", ".join(("retort", "compression", report.kind))
    before, after = _figures(report.before), _figures(report.after)
    rows = [f"| {name} | {before.get(name, '-')} | {value} |" for name, value in after.items()]
    lines = [
        *("---", "library_name: transformers", f"tags: [{tags}]", "---", ""),
        *(f"# {start}, {changed or 'measured'}", ""),
        *(f"Made by Retort from {start}:", ""),
        *(f"{place}. {_done(stage)}" for place, stage in enumerate(stages, start=1)),
        "",
        *("| figure | before | after |", "|---|--:|--:|", *rows, ""),
        *(f"- {note}" for note in _notes(report)),
    ]
    return "\n".join(lines) + "\n"


def lineage(report: StageReport, earlier: Sequence[StageReport]) -> tuple[StageReport, ...]:
    """The stages that made a model, the one that worked on the chain's first model in front."""
    made = {one.model: one for one in earlier if one.index < report.index}
    found = [report]
    while found[0].source in made:
        found.insert(0, made[found[0].source])
    return tuple(found)


def _name(start: str) -> str:
    """Of the first model's directory; the one above says more of what is just called model."""
    path = Path(start).absolute()
    return path.parent.name if path.name == "model" else path.name


def _done(stage: StageReport) -> str:
    words = f"{stage.kind}: {told}" if (told := settings(stage.spec)) else stage.kind
    if stage.heal is not None:
        words += f"; healed by {stage.heal.steps} steps of {stage.heal.method}"
    return words


def _figures(facts: ModelFacts) -> dict[str, str]:
    shape = facts.shape
    found = {
        "parameters": f"{shape.parameters:,}",
        "parameters not zero": f"{shape.nonzero:,}",
        "layers": f"{shape.layers}",
        "bytes of weights": f"{shape.weight_bytes:,}",
    }
    return {**found, **_over_rows(facts), **_of_answers(facts), **_speeds(facts)}


def _over_rows(facts: ModelFacts) -> dict[str, str]:
    """Of the rows' completions as they stand."""
    found = {}
    if facts.perplexity is not None:
        found["perplexity"] = _with_interval(facts.perplexity, ".4g")
    if facts.kl_from_start is not None:
        kl = facts.from_start.kl if facts.from_start else None
        told = _with_interval(kl, ".4f") if kl else f"{facts.kl_from_start:.4f}"
        found["KL from the first model, nats per token"] = told
    if facts.from_start is not None and facts.from_start.top1_agreement is not None:
        agreed = _with_interval(facts.from_start.top1_agreement, ".1%")
        found["likeliest token is the first model's"] = agreed
    if facts.from_teacher is not None and facts.from_teacher.kl is not None:
        kl = facts.from_teacher.kl
        found["KL from the teacher, nats per token"] = _with_interval(kl, ".4f")
    if facts.from_teacher is not None and facts.from_teacher.top1_agreement is not None:
        agreed = _with_interval(facts.from_teacher.top1_agreement, ".1%")
        found["likeliest token is the teacher's"] = agreed
    return found


def _of_answers(facts: ModelFacts) -> dict[str, str]:
    found = {}
    if facts.measurement is not None:
        for skill, one in facts.measurement.skills.items():
            found[f"accuracy, {skill}"] = f"{one.share:.1%} ({one.low:.1%} to {one.high:.1%})"
    if facts.row_answers is not None:
        rows = facts.row_answers
        found["answers equal to the row's"] = _with_interval(rows.exact_match, ".1%")
        found["ROUGE-L of answers"] = _with_interval(rows.rouge_l, ".3f")
        if rows.accuracy is not None:
            name = f"answers that the verifier takes ({rows.verifier})"
            found[name] = _with_interval(rows.accuracy, ".1%")
    return found


def _speeds(facts: ModelFacts) -> dict[str, str]:
    timed = facts.timed
    if timed is None:
        return {}
    found = {
        "tokens/s in transformers": timed.tokens_per_s,
        "prefill tokens/s in transformers": timed.prefill_tokens_per_s,
        "decode tokens/s in transformers": timed.decode_tokens_per_s,
        "peak memory in transformers, bytes": timed.peak_memory_bytes,
    }
    return {name: f"{value:,.0f}" for name, value in found.items() if value is not None}


def _rows(report: StageReport) -> list[str]:
    if not report.kl_tokens:
        return []
    told = [
        f"perplexity, KL and likeliest tokens: over {report.kl_tokens:,} completion tokens of "
        f"{report.kl_split} rows; intervals are 95%"
    ]
    answered = report.after.row_answers
    if answered is not None:
        told.append(
            f"answers to prompts of {answered.rows} {report.kl_split} rows, greedy, of at most "
            f"{answered.max_new_tokens} tokens"
        )
    return told


def _with_interval(figure: Estimate, form: str) -> str:
    return f"{figure.value:{form}} ({figure.low:{form}} to {figure.high:{form}})"


def _notes(report: StageReport) -> list[str]:
    # Behind FAILED comes the end of a log, with paths of this machine.
    lost = [why for why in report.failures if not why.startswith(FAILED)]
    notes, compared = [*_rows(report), *report.notes, *lost], report.serving
    if compared is None:
        why = FAILED if report.serving_note.startswith(FAILED) else report.serving_note
        return [*notes, f"vLLM: {why}."]
    if compared.passed:
        notes.append(
            f"{compared.vllm_version} answers alike: log-probabilities differ by "
            f"{compared.mean_logprob_difference:.4f} nats on average over {compared.prompts} "
            f"prompts, {compared.equal_completions:.1%} of completions are equal; "
            f"{_in_vllm(compared)}."
        )
    return notes


def _in_vllm(compared: ServingComparison) -> str:
    speeds = {
        "tokens/s": compared.vllm_tokens_per_s,
        "tokens/s of prefill": compared.vllm_prefill_tokens_per_s,
        "tokens/s of decode": compared.vllm_decode_tokens_per_s,
    }
    known = (f"{value:,.0f} {name}" for name, value in speeds.items() if value is not None)
    return ", ".join(known)
