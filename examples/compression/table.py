"""python -m examples.compression.table --out DIR [--text FILE]: methods against ratios, measured.

Trains a byte-level model on plain text, or takes a student (--model, with --dataset, and questions
by --evaluation), compresses it by every method, and prints cross-entropy a token, KL from the
uncompressed model, accuracy and bytes, each with its floor first: round-to-nearest, magnitude,
plain SVD. Whatever is finished in DIR is kept: a run that was stopped goes on, and doesn't measure
a model again.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from examples.compression.text import read_text, write_dataset, write_model
from trainer.assess import read_rows
from trainer.compress.chain import run
from trainer.compress.measuring import digest_model
from trainer.compress.report import StageReport
from trainer.data import TokenRow, encode, read_records
from trainer.evaluate import measure as measure_answers
from trainer.events import silent
from trainer.loading import end_ids, load_model, load_tokenizer
from trainer.measurement import Accuracy, Estimate, bootstrap
from trainer.spec import CompressSpec, EvalSpec, Optimization, SequenceLevel
from trainer.training import train

RATE = 2e-3
SHORT = {"batch_size": 32, "checkpoint_steps": 50, "eval_steps": 1000}
RESAMPLES = 2000
PTQ = (
    ("", "W4A16", ("rtn", "gptq", "awq")),
    (", 8 bits", "W8A8", ("rtn", "gptq", "smoothquant")),
    (", 8-bit weights", "W8A16", ("rtn", "gptq")),
    (", FP8", "FP8", ("rtn",)),
)
GROUPED: dict[str, dict[str, Any]] = {
    "W4A16": {"group_size": 32}, "W8A8": {}, "W8A16": {}, "FP8": {},
}  # fmt: skip
Stages = tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Size:
    """How much is done."""

    rows: int
    steps: int
    heal_steps: int
    width: int
    layers: int
    zeros: tuple[float, ...]
    kept: tuple[float, ...]
    measured_rows: int


SIZES = {
    "smoke": Size(48, 2, 1, 64, 1, (0.5, 0.7), (0.5, 0.7), 4),
    "small": Size(4000, 400, 30, 64, 2, (0.3, 0.5, 0.7), (0.4, 0.6, 0.8), 200),
    "full": Size(20_000, 4000, 200, 192, 4, (0.2, 0.3, 0.5, 0.7), (0.3, 0.4, 0.6, 0.8), 500),
}
"""A minute's worth, to see it work; minutes; an hour or more."""


def main(arguments: list[str] | None = None) -> None:
    """Make the table, print it, and leave it in DIR."""
    parser = argparse.ArgumentParser(prog="python -m examples.compression.table")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--text", type=Path, help="plain text; default: the demo's stories")
    parser.add_argument("--model", type=Path, help="a student to compress, in place of text")
    parser.add_argument("--dataset", type=Path, help="its rows: calibration, heals, validation")
    parser.add_argument("--evaluation", type=Path, help="questions, for accuracy as well")
    parser.add_argument("--size", choices=sorted(SIZES), default="small")
    parser.add_argument("--rate", type=float, default=5e-4, help="of heals, QAT and QAF")
    parser.add_argument("--steps", type=int, help="of the same; default: the size's")
    parser.add_argument("--only", nargs="*", metavar="METHOD", help="as the table names them")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args(arguments)
    if (given.model is None) != (given.dataset is None):
        parser.error("--model and --dataset go together")
    size, rows = SIZES[given.size], list[dict[str, Any]]()
    size = replace(size, heal_steps=given.steps or size.heal_steps)
    given.out.mkdir(parents=True, exist_ok=True)
    start = given.model or write_model(given.out / "base", size.width, size.layers)
    methods = dict(groups(size, given.rate, shape_of(start)))
    if unknown := set(given.only or ()) - methods.keys():
        parser.error(f"--only: there is no {', '.join(sorted(unknown))}; {', '.join(methods)}")
    if given.only:
        methods = {name: methods[name] for name in given.only}
    source = Source(given.model, given.dataset)
    if given.model is None:
        source = train_source(given.out, read_text(given.text), size, given.threads)
    questions = EvalSpec(data=str(given.evaluation)) if given.evaluation else None
    measured = Measured(given.out / "measured.json", size.measured_rows, source, questions)
    for row in make_table(given.out, methods, measured, given.threads):
        rows.append(row)
        print(f"{row['method']} {row['ratio']}", flush=True)
        (given.out / "table.md").write_text(as_markdown(rows), "utf-8")
        (given.out / "table.json").write_text(json.dumps(rows, indent=1), "utf-8")
    print(as_markdown(rows))


@dataclass(frozen=True)
class Shape:
    """What structured stages count in."""

    layers: int
    feed_forward: int


def shape_of(model: Path) -> Shape:
    """Of a model directory, by its configuration."""
    config = AutoConfig.from_pretrained(model)
    return Shape(config.num_hidden_layers, config.intermediate_size)


@dataclass(frozen=True)
class Source:
    """What is compressed, and the rows for it."""

    model: Path
    dataset: Path


def train_source(out: Path, text: str, size: Size, threads: int) -> Source:
    """A byte-level model trained on text."""
    dataset = write_dataset(text, out / "dataset", size.rows)
    base = write_model(out / "base", size.width, size.layers)
    optimization = Optimization(
        learning_rate=RATE, batch_size=32, max_steps=size.steps, threads=threads,
        checkpoint_steps=50, eval_steps=1000, weight_decay=0.1,
    )  # fmt: skip
    spec = SequenceLevel(
        method="sequence_level", student=str(base), dataset=str(dataset), optimization=optimization
    )
    return Source(train(spec, out / "train", silent), dataset)


def make_table(
    out: Path, methods: dict[str, Stages], measured: "Measured", threads: int
) -> Iterator[dict[str, Any]]:
    """A row for each model as it is measured, the uncompressed one first."""
    source = measured.source
    yield measured.row("uncompressed", "", source.model)
    for name, stages in methods.items():
        given = {"model": str(source.model), "dataset": str(source.dataset), "threads": threads}
        compress = CompressSpec(**given, serve_check=False, stages=stages)
        for report in run(compress, out / name, silent):
            yield measured.row(name, _ratio(report), Path(report.model))


def groups(size: Size, rate: float, shape: Shape) -> Iterator[tuple[str, Stages]]:
    """Methods by the name they have in the table, each family's floor first, training last."""
    zeros, kept = {"sweep": {"ratios": size.zeros}}, {"sweep": {"ratios": size.kept}}
    masks = ("magnitude", "wanda", "sparsegpt")
    for kind in masks:
        yield kind, ({"kind": kind, **zeros},)
    for kind in masks:
        yield f"{kind}, 2:4", ({"kind": kind, "pattern": "2:4"},)
    yield from structured(shape, {})
    for name, scaling in (("SVD", "none"), ("ASVD", "activation"), ("SVD-LLM", "whitening")):
        yield name, ({"kind": "svd", "scaling": scaling, **kept},)
    yield "SVD-LLM, ranks by loss", ({"kind": "svd", "ranks": "by_loss", **kept},)
    attention = {"targets": ("q_proj", "k_proj", "v_proj", "o_proj"), "scaling": "none", **kept}
    yield "SVD of attention", ({"kind": "svd", **attention},)
    for name, form in (("Tucker", "tucker"), ("CP", "cp")):
        yield f"{name} of attention", ({"kind": "tensor", "form": form, **kept},)
    for name, scheme, algorithms in PTQ:
        for algorithm in algorithms:
            stage = {"kind": "ptq", "scheme": scheme, "algorithm": algorithm, **GROUPED[scheme]}
            yield f"PTQ {algorithm}{name}", (stage,)
    yield from trained(size, rate, shape)


def structured(shape: Shape, more: dict[str, Any]) -> Iterator[tuple[str, Stages]]:
    """Layers and units that go, by both scores each; `more` is in every stage."""
    gone, named = range(1, shape.layers // 2 + 1), ", healed" if "heal" in more else ""
    for score in ("block_influence", "perplexity") if gone else ():
        fixed = {"kind": "depth", "importance": score, "on": "start", **more}
        yield f"depth, {score}{named}", tuple({**fixed, "layers": count} for count in gone)
    sizes = (shape.feed_forward * 3 // 4, shape.feed_forward // 2)
    for score in ("activation", "taylor"):
        fixed = {"kind": "width", "importance": score, "on": "start", **more}
        yield f"width, {score}{named}", tuple({**fixed, "feed_forward": units} for units in sizes)


def trained(size: Size, rate: float, shape: Shape) -> Iterator[tuple[str, Stages]]:
    """What goes through a training: heals, QAT and QAF."""
    zeros, kept = {"sweep": {"ratios": size.zeros}}, {"sweep": {"ratios": size.kept}}
    short = {**SHORT, "learning_rate": rate, "max_steps": size.heal_steps}
    heal = {"method": "forward_kl", "optimization": short}
    yield "sparsegpt, healed", ({"kind": "sparsegpt", "heal": heal, **zeros},)
    yield from structured(shape, {"heal": heal})
    yield "SVD-LLM, healed", ({"kind": "svd", "heal": heal, **kept},)
    four = {"scheme": "W4A16", **GROUPED["W4A16"]}
    yield "QAT", ({"kind": "qat", "training": heal, **four},)
    yield "QAF, PEQA", ({"kind": "qaf", "training": heal, **four},)
    adapters = {"kind": "qaf", "rank": 8, "training": heal, **four}
    yield "QAF, QLoRA", ({**adapters, "method": "qlora"},)
    yield "QAF, QLoRA from LoftQ", ({**adapters, "method": "qlora", "initialization": "loftq"},)
    yield "QAF, QA-LoRA", ({**adapters, "method": "qa_lora"},)


class Measured:
    """Figures of models against one start, kept in a file by the digest of their weights."""

    def __init__(self, file: Path, count: int, source: Source, questions: EvalSpec | None) -> None:
        self.source = source
        self._file, self._questions = file, questions
        self._held = _held(source.model, source.dataset, count)
        self._asked = f"{digest_model(source.model)} {count} {questions}"
        self._kept: dict[str, Any] = json.loads(file.read_text("utf-8")) if file.exists() else {}

    def row(self, method: str, ratio: str, model: Path) -> dict[str, Any]:
        """Cross-entropy and distance a token, on validation rows; accuracy; bytes on disk."""
        key = f"{digest_model(model)} {self._asked}"
        if key not in self._kept:
            self._kept[key] = self._measure(model)
            self._file.write_text(json.dumps(self._kept), "utf-8")
        return {"method": method, "ratio": ratio, **self._kept[key]}

    def _measure(self, model: Path) -> dict[str, Any]:
        read = read_rows(load_model(model), load_model(self.source.model), self._held, 16)
        return {
            "nats": bootstrap(read.nats, read.tokens, RESAMPLES).model_dump(),
            "kl": bootstrap(read.kl, read.tokens, RESAMPLES).model_dump(),
            "accuracy": _accuracy(model, self._questions),
            "bytes": sum(path.stat().st_size for path in model.glob("*.safetensors")),
        }


def as_markdown(rows: list[dict[str, Any]]) -> str:
    """The table as the documentation has it."""
    skills = list(rows[0]["accuracy"]) if rows else []
    asked = "".join(f" accuracy, {skill} |" for skill in skills)
    lines = [
        f"| method | ratio | nats a token | KL from uncompressed |{asked} bytes |",
        "|---|---|---|---|" + "---|" * len(skills) + "---|",
    ]
    for row in rows:
        nats = _said(Estimate.model_validate(row["nats"]), 3)
        kl = _said(Estimate.model_validate(row["kl"]), 4)
        right = "".join(f" {_share(row['accuracy'][skill])} |" for skill in skills)
        said = f"| {row['method']} | {row['ratio']} | {nats} | {kl} |{right} {row['bytes']:,} |"
        lines.append(said)
    return "\n".join(lines) + "\n"


def _said(figure: Estimate, decimals: int) -> str:
    value, low, high = (f"{x:.{decimals}f}" for x in (figure.value, figure.low, figure.high))
    return f"{value} ({low} to {high})"


def _accuracy(model: Path, questions: EvalSpec | None) -> dict[str, Any]:
    if questions is None:
        return {}
    skills = measure_answers(model, questions).skills
    return {skill: found.model_dump() for skill, found in skills.items()}


def _share(found: dict[str, Any]) -> str:
    one = Accuracy.model_validate(found)
    return f"{one.share:.1%} ({one.low:.1%} to {one.high:.1%})"


def _ratio(report: StageReport) -> str:
    """What a line's second column says: a share, bits, a pattern, or what went."""
    spec = report.spec
    if report.sweep is not None:
        return f"{report.sweep.ratio:g}"
    match report.kind:
        case "depth":
            return f"{spec['layers']} gone"
        case "width":
            return f"{spec['feed_forward']} units"
        case "ptq" | "qat" | "qaf":
            return {"W4A16": "4 bits"}.get(spec["scheme"], "8 bits")
    return str(spec["pattern"])


def _held(model: Path, dataset: Path, count: int) -> tuple[TokenRow, ...]:
    tokenizer, loaded = load_tokenizer(model), load_model(model)
    records = read_records(dataset, "validation")[:count]
    return encode(records, tokenizer, 256, end_ids(loaded, tokenizer)).rows


if __name__ == "__main__":
    main()
