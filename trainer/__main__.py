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

from trainer.errors import BadInput, Terminated
from trainer.events import Emit, claim_stdout, silent
from trainer.spec import CompressSpec, EvalSpec, TrainSpec
from trainer.stop import raise_on_sigterm

# torch takes seconds to import: each command imports what it needs when it runs.


def main(arguments: list[str] | None = None) -> int:
    """Run one command; its exit code."""
    given = _parser().parse_args(arguments)
    emit = claim_stdout() if os.environ.get("RANK", "0") == "0" else silent
    raise_on_sigterm()
    try:
        _COMMANDS[given.command](given, emit)
    except BadInput as error:
        emit("error", {"title": error.title, "detail": error.detail})
        return 2
    except Terminated:
        return 143
    return 0


def _train(given: argparse.Namespace, emit: Emit) -> None:
    from trainer.training import dry_run, train

    spec = _read_spec(given.spec, TypeAdapter[TrainSpec](TrainSpec))
    if given.dry_run:
        print(dry_run(spec, emit), file=sys.stderr)
        emit("done", {"result": {"dry_run": True}})
        return
    if given.out is None:
        raise BadInput("no place for the student", "Add --out DIR.")
    model = train(spec, given.out, emit)
    emit("done", {"result": {"model": str(model)}})


def _evaluate(given: argparse.Namespace, emit: Emit) -> None:
    from trainer.evaluate import measure

    spec = _read_spec(given.spec, TypeAdapter(EvalSpec))
    emit("phase", {"name": "evaluate", "detail": str(given.model)})
    measurement = measure(given.model, spec, threads=given.threads)
    _write(given.out, measurement.model_dump_json(indent=1))
    skills = measurement.model_dump()["skills"]
    emit("accuracy", {"model": str(given.model), "skills": skills})
    emit("done", {"result": measurement.model_dump()})


def _compress(given: argparse.Namespace, emit: Emit) -> None:
    from trainer.compress.chain import run

    run(_read_spec(given.spec, TypeAdapter(CompressSpec)), given.out, emit)


def _report(given: argparse.Namespace, emit: Emit) -> None:
    from trainer.report.build import run

    run(given.chain, given.out)
    emit("done", {"result": {"report": str(given.out)}})


def _run(given: argparse.Namespace, emit: Emit) -> None:
    from trainer.recipe import run_recipe

    run_recipe(given.recipe, given.out, emit)


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
        "--dry-run", action="store_true", help="show a row with its mask, and the plan"
    )
    compress = commands.add_parser("compress", help="prune, factorize, quantize")
    compress.add_argument("--spec", type=Path, required=True, help="CompressSpec, JSON or YAML")
    compress.add_argument("--out", type=Path, required=True)
    evaluate = commands.add_parser("evaluate", help="measure a model")
    evaluate.add_argument("--model", required=True, help="directory or hub name")
    evaluate.add_argument("--spec", type=Path, required=True, help="EvalSpec, JSON or YAML")
    evaluate.add_argument("--out", type=Path, required=True, help="gets the Measurement, JSON")
    evaluate.add_argument("--threads", type=int, help="CPU threads; default all cores")
    report = commands.add_parser("report", help="draw a finished chain")
    report.add_argument("--chain", type=Path, required=True)
    report.add_argument("--out", type=Path, required=True)
    run = commands.add_parser("run", help="train, compress, evaluate and report by one recipe")
    run.add_argument("recipe", type=Path)
    run.add_argument("--out", type=Path, default=Path("out"))
    return parser


def _read_spec(path: Path, adapter: TypeAdapter[Any]) -> Any:
    """A spec from JSON or YAML; BadInput names every field that is wrong."""
    import yaml

    try:
        return adapter.validate_python(yaml.safe_load(path.read_text("utf-8")))
    except OSError as error:
        raise BadInput(f"{path} can't be read", str(error)) from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadInput(f"{path} is neither JSON nor YAML", str(error)) from error
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'spec'}: {e['msg']}" for e in error.errors()
        )
        raise BadInput(f"{path} is not a spec", problems) from error


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    written = path.with_name(f".{path.name}.writing")
    written.write_text(text, "utf-8")
    written.replace(path)


if __name__ == "__main__":
    sys.exit(main())
