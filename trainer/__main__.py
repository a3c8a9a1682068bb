"""The trainer as a child process: `python -m trainer {train,compress,evaluate,report,run}`.

Events on standard output, logs on standard error, the exit code says how it ended
(docs/architecture.md).
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from trainer.compress.gate import GateFailed
from trainer.errors import BadInput, Lost, Terminated
from trainer.events import Emit, claim_stdout, silent
from trainer.recipe import evaluate, read_spec, run_recipe, tell_problems, write
from trainer.spec import CompressSpec, DatasetEval, EvalSpec, TrainSpec
from trainer.stop import raise_on_stop

# torch takes seconds to import: each command imports what it needs when it runs, so that a bad
# spec is said at once.

SPINS = "1000"
"""Turns that a thread waits for the others before it gives its core away. GNU's OpenMP, which torch
computes with on Linux, takes its fill of milliseconds: no loss where a training has the cores for
itself, and several times its duration where another process wants one of them."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; its exit code."""
    given = _parser().parse_args(arguments)
    emit = claim_stdout() if os.environ.get("RANK", "0") == "0" else silent
    raise_on_stop()
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)  # is read when torch is loaded
    try:
        result = _COMMANDS[given.command](given, emit)
    except (BadInput, GateFailed) as error:
        emit("error", {"title": error.title, "detail": error.detail})
        return 2 if isinstance(error, BadInput) else 3
    except Lost as error:
        emit("error", {"title": error.title, "detail": error.detail, "again": True})
        print(error, file=sys.stderr)  # the end of the log is what a crash is told by
        return 1
    except Terminated:
        return 143
    emit("done", {"result": result})
    return 0


def _train(given: argparse.Namespace, emit: Emit) -> dict[str, Any]:
    spec = read_spec(given.spec, TypeAdapter[TrainSpec](TrainSpec))
    if given.dry_run:
        from trainer.preflight import dry_run

        told = dry_run(spec, emit)
        print(told, file=sys.stderr)
        return {"dry_run": True, "text": told}
    if given.out is None:
        raise BadInput("no place for the student", "Add --out DIR.")
    from trainer.training import train

    return {"model": str(train(spec, given.out, emit))}


def _evaluate(given: argparse.Namespace, emit: Emit) -> dict[str, Any]:
    if (given.spec is None) == (given.dataset is None):
        raise BadInput(
            "on what to evaluate?", "Add --dataset DIR, or --spec FILE with an EvalSpec."
        )
    if given.dataset is not None:
        return _assess(given, emit)
    if given.out is None:
        raise BadInput("no place for the measurement", "Add --out FILE.")
    spec: EvalSpec = read_spec(given.spec, TypeAdapter(EvalSpec))
    return evaluate(given.model, spec, given.out, emit, given.threads).model_dump(mode="json")


def _assess(given: argparse.Namespace, emit: Emit) -> dict[str, Any]:
    names = [
        "dataset",
        "split",
        "teacher",
        "limit",
        "max_new_tokens",
        "batch_size",
        "samples",
        "threads",
    ]
    asked = {name: vars(given)[name] for name in names if vars(given)[name] is not None}
    if given.vllm or given.vllm_python is not None:
        asked["vllm"] = True
    if given.verify is not None:
        asked["verify"] = {"kind": given.verify}
    try:
        spec = DatasetEval.model_validate(asked)
    except ValidationError as error:
        raise BadInput("that can't be evaluated", tell_problems(error)) from error
    from trainer.assess import assess

    found = assess(given.model, spec, emit, given.vllm_python)
    if given.out is not None:
        write(given.out, found.model_dump_json(indent=1))
    return found.model_dump(mode="json")


def _compress(given: argparse.Namespace, emit: Emit) -> dict[str, Any]:
    spec: CompressSpec = read_spec(given.spec, TypeAdapter(CompressSpec))
    from trainer.compress.chain import run

    reports = run(spec, given.out, emit, given.vllm_python)
    return {"model": reports[-1].model, "stages": len(reports)}


def _report(given: argparse.Namespace, emit: Emit) -> dict[str, Any]:
    from trainer.report.build import run

    return run(given.chain, given.out, emit)


def _run(given: argparse.Namespace, emit: Emit) -> dict[str, Any]:
    return run_recipe(given.recipe, given.out, emit)


_COMMANDS = {
    "train": _train,
    "compress": _compress,
    "evaluate": _evaluate,
    "report": _report,
    "run": _run,
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m trainer", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="a dataset and a base model in, a student out")
    train.add_argument("--spec", type=Path, required=True, help="TrainSpec, JSON or YAML")
    train.add_argument("--out", type=Path, help="gets checkpoints/ and model/")
    train.add_argument(
        "--dry-run", action="store_true", help="show a row with its mask, the plan, memory and time"
    )
    compress = commands.add_parser("compress", help="prune, factorize, quantize")
    compress.add_argument("--spec", type=Path, required=True, help="CompressSpec, JSON or YAML")
    compress.add_argument("--out", type=Path, required=True)
    compress.add_argument("--vllm-python", type=Path, help="interpreter of the serving check")
    evaluating = commands.add_parser("evaluate", help="measure a model")
    evaluating.add_argument("--model", required=True, help="directory or hub name")
    evaluating.add_argument("--spec", type=Path, help="EvalSpec, JSON or YAML")
    evaluating.add_argument("--dataset", help="a dataset's directory, in place of --spec")
    evaluating.add_argument("--split", help="train, validation or test (default)")
    evaluating.add_argument("--teacher", help="model to compare with, token by token")
    evaluating.add_argument("--limit", type=int, help="rows; default 200")
    evaluating.add_argument("--max-new-tokens", type=int, help="of each answer; default 160")
    evaluating.add_argument("--batch-size", type=int, help="default 16")
    evaluating.add_argument("--samples", type=int, help="answers to show; default 5")
    evaluating.add_argument("--vllm", action="store_true", help="its speed in vLLM too")
    evaluating.add_argument("--vllm-python", type=Path, help="interpreter that has vLLM")
    evaluating.add_argument("--verify", help="verifier's kind; default the dataset's own")
    evaluating.add_argument("--out", type=Path, help="gets the figures, JSON")
    evaluating.add_argument("--threads", type=int, help="CPU threads; default all cores")
    report = commands.add_parser("report", help="draw a finished chain")
    report.add_argument("--chain", type=Path, required=True)
    report.add_argument("--out", type=Path, required=True)
    run = commands.add_parser("run", help="train, compress, evaluate and report by one recipe")
    run.add_argument("recipe", type=Path)
    run.add_argument("--out", type=Path, default=Path("out"))
    return parser


if __name__ == "__main__":
    sys.exit(main())
