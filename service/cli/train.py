"""`retort train`: a training on this machine, or a look at it before; no stack need be up."""

import json
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from prompts.yaml_text import read_yaml
from service.cli.failure import bad_input
from service.cli.learning import figure, sample, terms, validation
from service.cli.options import Json, Screen, screen
from service.cli.trainer import run_trainer

PATHS = ("dataset", "student", "teacher", "text")
"""Fields of a training that may name what lies beside its file."""


def train(
    spec: Annotated[
        Path, typer.Argument(help="A training, or a recipe with one: YAML.", show_default=False)
    ],
    out: Annotated[
        Path | None, typer.Option(help="Gets checkpoints/ and model/.", show_default=False)
    ] = None,
    dataset: Annotated[
        Path | None, typer.Option(help="A dataset's directory, in place of the file's.")
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Show a row with its mask, the plan, memory and time; train nothing."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Train a student on this machine, without the stack; run again, it goes on."""
    if out is None and not dry_run:
        raise bad_input("No place for the student", "add --out DIR, or look first with --dry-run")
    shown = screen(as_json)
    found = _run(_read(spec, dataset), out, dry_run, shown)
    if as_json:
        shown.document(found)
    else:
        shown.say(found["text"] if dry_run else f"model {found['model']}")


def _read(path: Path, dataset: Path | None) -> dict[str, Any]:
    """A training as the file has it, paths made absolute as `retort run` does."""
    try:
        spec = read_yaml(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise bad_input("No such training", f"there is no file {path}") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise bad_input("The training can't be read", f"{path}: {error}") from error
    chosen = spec.get("train", spec) if isinstance(spec, dict) else None
    if not isinstance(chosen, dict):
        raise bad_input("The file holds no training", f"{path} must hold fields, or `train:`")
    if dataset is not None:
        chosen = chosen | {"dataset": str(dataset.absolute())}
    beside = {name: path.absolute().parent / chosen[name] for name in PATHS if _named(chosen, name)}
    return chosen | {name: str(place) for name, place in beside.items() if place.exists()}


def _named(spec: dict[str, Any], name: str) -> bool:
    return isinstance(spec.get(name), str)


def _run(spec: dict[str, Any], out: Path | None, dry_run: bool, shown: Screen) -> dict[str, Any]:
    def heard(event: dict[str, Any]) -> None:
        if shown.json and event["event"] != "done":
            shown.document(event)
        elif line := told(event):
            shown.say(line)

    with tempfile.TemporaryDirectory() as place:
        written = Path(place, "train.json")
        # YAML makes dates of names that look like one
        written.write_text(json.dumps(spec, default=str), "utf-8")
        words = ["train", "--spec", str(written), *(["--dry-run"] if dry_run else [])]
        words += [] if out is None else ["--out", str(out)]
        return run_trainer(words, "The training", heard)


def told(event: dict[str, Any]) -> str | None:
    """An event in a line, or None for those that a person needn't read."""
    match event["event"]:
        case "phase":
            return f"{event['name']}: {event['detail']}"
        case "warning":
            return f"warning: {event['detail']}"
        case "step":
            place = f"step {event['step']} of {event['steps']}"
            speed = f"{event['tokens_per_s']:,.0f} tokens/s"
            return ", ".join([f"{place}: loss {figure(event['loss'])}", *terms(event), speed])
        case "validation":
            return validation(event)
        case "samples":
            return sample(event)
        case _:
            return None
