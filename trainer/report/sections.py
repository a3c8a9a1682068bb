"""The tables of a report: the same cells for the page, for Markdown and for whoever compares."""

from statistics import median

from trainer.report import cells, text
from trainer.report.cells import Cell, label, missing
from trainer.report.chain import Chain, Training
from trainer.report.derive import Derived, part_seconds
from trainer.report.grid import Table, facts, grid
from trainer.report.model_tables import costs_table, gaps_table, models_table, steps_table
from trainer.report.said import samples_table
from trainer.report.stage_tables import (
    losses_table,
    row_answers_table,
    stages_table,
    teacher_table,
)


def all_tables(chain: Chain, derived: Derived) -> dict[str, Table]:
    """Every table by the name that the templates call it by."""
    return {
        "models": models_table(derived),
        "costs": costs_table(derived),
        "gaps": gaps_table(derived),
        "steps": steps_table(chain, derived),
        "stages": stages_table(chain),
        "losses": losses_table(chain),
        "row-answers": row_answers_table(chain),
        "teacher": teacher_table(chain),
        "dataset": dataset_table(chain, derived),
        "ends": ends_table(chain),
        "training": training_table(chain.training, chain.why.get("training")),
        "samples": samples_table(chain.training),
        "parts": parts_table(chain),
        "lineage": lineage_table(chain),
        "machine": machine_table(chain),
    }


def dataset_table(chain: Chain, derived: Derived) -> Table:
    """What the dataset is and what it took."""
    dataset = chain.dataset
    if dataset is None:
        absent = chain.why.get("dataset", "this chain built no dataset")
        return facts("Dataset", {"dataset": missing(absent)})
    why = dataset.why
    name = dataset.name if dataset.version is None else f"{dataset.name}, version {dataset.version}"
    return facts(
        "Dataset",
        {
            "name": label(name),
            "id": label(dataset.id),
            "kind": label(dataset.kind, why.get("kind")),
            "rows given": cells.count(derived.input_rows, None),
            "accepted": cells.count(dataset.accepted, None),
            "share accepted of accepted and rejected": cells.percent(derived.accepted_share),
            **{
                f"accepted, {split}": cells.count(rows, None)
                for split, rows in dataset.splits.items()
            },
            "completions asked for": cells.count(dataset.requests, why.get("requests")),
            "prompt tokens": cells.count(dataset.prompt_tokens, why.get("prompt_tokens")),
            "completion tokens": cells.count(
                dataset.completion_tokens, why.get("completion_tokens")
            ),
            "teacher": label(dataset.teacher, why.get("teacher")),
            "teacher's revision": label(dataset.teacher_revision, why.get("teacher_revision")),
            "time asking the teacher": cells.duration(
                dataset.teacher_seconds, why.get("teacher_seconds")
            ),
        },
    )


def ends_table(chain: Chain) -> Table:
    """How the rows ended, commonest first."""
    dataset = chain.dataset
    if dataset is None:
        return grid("How the rows ended", ["end", "rows", "share"], [])
    ends = [("accepted", dataset.accepted)]
    ends += sorted(dataset.rejected.items(), key=lambda pair: (-pair[1], pair[0]))
    ends += [(f"not needed: {why}", rows) for why, rows in sorted(dataset.not_needed.items())]
    total = sum(rows for _, rows in ends)
    rows = (
        [label(name), cells.count(number, None), cells.percent(number / total if total else None)]
        for name, number in ends
    )
    return grid("How the rows ended", ["end", "rows", "share"], rows)


def training_table(training: Training | None, why: str | None) -> Table:
    """The run in a few figures."""
    if training is None:
        return facts("Training", {"training": missing(why or "this chain trained nothing")})
    losses = [step.loss for step in training.steps if step.loss is not None]
    looks = [look for look in training.validation if look.loss is not None]
    best = min(looks, key=lambda look: look.loss or 0.0) if looks else None
    speeds = [step.tokens_per_s for step in training.steps if step.tokens_per_s is not None]
    untold = "the run wrote none"
    return facts(
        "Training",
        {
            "method": label(training.method),
            "rows": cells.count(training.rows, untold),
            "rows left out as too long": cells.count(training.left_out, untold),
            "rows left out as cut off": cells.count(training.cut, untold),
            "rows left out, of no use to the method": cells.count(training.unsuited, untold),
            "optimizer steps": cells.count(
                training.steps[-1].step if training.steps else None, untold
            ),
            "first training loss": cells.small(losses[0] if losses else None, untold),
            "last training loss": cells.small(losses[-1] if losses else None, untold),
            "best validation loss": cells.small(best.loss if best else None, "no validation rows"),
            "at step": cells.count(best.step if best else None, "no validation rows"),
            "tokens/s, median of steps": cells.speed(median(speeds) if speeds else None, untold),
            "seed": cells.count(training.seed, untold),
            "threads": cells.count(training.threads, untold),
        },
    )


def parts_table(chain: Chain) -> Table:
    """Jobs and their wall time."""
    columns = ["part", "job", "state", "started (UTC)", "wall time", "attempts"]
    rows = (
        [
            label(part.kind),
            label(part.id),
            label(f"{part.state}: {part.reason}" if part.reason else part.state),
            label(
                f"{part.started_at:%Y-%m-%d %H:%M:%S}" if part.started_at else None, "not started"
            ),
            cells.duration(part_seconds(part), "not finished"),
            cells.count(part.attempts, None),
        ]
        for part in chain.parts
    )
    return grid("Parts", columns, rows)


def lineage_table(chain: Chain) -> Table:
    """Every artifact and what it was made from."""
    columns = ["artifact", "kind", "name", "version", "bytes", "SHA-256", "made from"]
    rows = (
        [
            label(node.id),
            label(node.kind),
            label(node.name),
            cells.count(node.version, "has no versions"),
            Cell(text=text.size(node.bytes)) if node.bytes is not None else missing("not told"),
            label(node.sha256[:16] if node.sha256 else None, "not told"),
            label(", ".join(node.inputs) or "nothing: it was given"),
        ]
        for node in chain.lineage
    )
    return grid("Artifacts", columns, rows)


def machine_table(chain: Chain) -> Table:
    """Where it ran and with which versions."""
    machine, untold = chain.machine, "not recorded"
    memory = text.size(machine.memory_bytes) if machine.memory_bytes is not None else None
    return facts(
        "Machine and versions",
        {
            "CPU": label(machine.cpu, untold),
            "cores": cells.count(machine.cores, untold),
            "memory": label(memory, untold),
            "GPU": label(machine.gpu or "none used"),
            "system": label(machine.system, untold),
            **{name: label(version) for name, version in sorted(chain.versions.items())},
            **{name: label(str(value)) for name, value in sorted(chain.settings.items())},
        },
    )
