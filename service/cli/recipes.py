"""Recipe files: YAML with paths of this machine, made into a spec that the API understands."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from prompts.yaml_text import read_yaml
from service.cli.client import Api
from service.cli.failure import bad_input

FILE_FIELDS = {
    "build.seeds": "seeds",
    "build.pool": "pool",
    "build.decontaminate": "seeds",
    "evaluate.data": "evaluation",
    "compress.evaluate.data": "evaluation",
    "input": "batch",
}
"""Where recipes name files, and what for."""
MODEL_FIELDS = (
    *("model", "serve.model", "train.student", "train.teacher"),
    *("compress.model", "compress.teacher"),
)
DATASET_FIELDS = ("train.dataset", "compress.dataset")
Say = Callable[[str], None]


@dataclass(frozen=True)
class Recipe:
    """A recipe as it was written, and the folder that its paths are relative to."""

    spec: dict[str, Any]
    folder: Path


def read_recipe(path: Path, changes: list[str]) -> Recipe:
    """Read a YAML file and apply `--set key=value` changes. Raises Failure with the place of what
    is wrong: no such file, no YAML, no mapping, or fields that no job has."""
    try:
        spec = read_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise bad_input("No such recipe", f"there is no file {path}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise bad_input("The recipe can't be read", f"{path}: {error}") from error
    except yaml.YAMLError as error:
        raise bad_input("The recipe isn't YAML", f"{path}: {error}") from error
    if not isinstance(spec, dict):
        raise bad_input("The recipe isn't a mapping", f"{path} must hold `key: value` lines")
    spec.setdefault("kind", "recipe")
    for change in changes:
        _apply(spec, change)
    _validate(spec)
    return Recipe(spec, path.absolute().parent)


def check_paths(recipe: Recipe) -> None:
    """Raises Failure for files and directories that aren't there: before anything is sent."""
    wrong = [
        {"location": field, "message": f"there is no {noun} {value} in {recipe.folder}"}
        for noun, fields in (("file", FILE_FIELDS), ("directory", MODEL_FIELDS + DATASET_FIELDS))
        for field, value in _values(recipe.spec, fields)
        if _is_path(value) and not (recipe.folder / Path(value).expanduser()).exists()
    ]
    if wrong:
        raise bad_input("The recipe names what isn't there", errors=wrong)


def send_files(recipe: Recipe, api: Api, say: Say) -> dict[str, Any]:
    """The spec with local files uploaded and replaced by their ids, and directories absolute."""
    spec = recipe.spec
    for field, value in _values(spec, FILE_FIELDS):
        local = recipe.folder / Path(value).expanduser()
        if local.is_file():
            spec = _replaced(spec, field, send_file(api, local, FILE_FIELDS[field], say))
    for field, value in _values(spec, (*MODEL_FIELDS, *DATASET_FIELDS, "build.seeds")):
        local = recipe.folder / Path(value).expanduser()
        if local.is_dir():
            spec = _replaced(spec, field, str(local.resolve()))
    return spec


def send_file(api: Api, path: Path, purpose: str, say: Say) -> str:
    """Upload a file, unless the API has this very one already; its id."""
    digest = _sha256(path)
    for known in api.get("/files", name=path.name, limit=20)["artifacts"]:
        if known["sha256"] == digest and known["summary"].get("purpose") == purpose:
            say(f"{path.name}: there already as {known['id']}")
            return str(known["id"])
    sent = api.upload(path, purpose)
    say(f"{path.name}: uploaded as {sent['id']}, {sent['bytes']:,} bytes")
    return str(sent["id"])


def _validate(spec: dict[str, Any]) -> None:
    # Late: the specs are only needed here, and every command would wait for them.
    from service.errors import faults
    from service.spec import job_spec

    try:
        job_spec.validate_python(spec)
    except ValidationError as error:
        placed = [one | {"loc": ("body", *one["loc"])} for one in error.errors()]
        errors = [fault.as_json() for fault in faults(placed, spec)]
        raise bad_input("The recipe can't be used", errors=errors) from error


def _apply(spec: dict[str, Any], change: str) -> None:
    key, equals, text = change.partition("=")
    if not equals or not key:
        raise bad_input("--set takes key=value", f"{change!r} has no `=`; such as train.name=small")
    *path, last = key.split(".")
    here: Any = spec
    for step in path:
        here = _step(here, step, key, make=True)
    value = read_yaml(text)
    if isinstance(here, list) and last.isdigit() and int(last) < len(here):
        here[int(last)] = value
    elif isinstance(here, dict):
        here[last] = value
    else:
        raise bad_input("--set finds no such place", f"{key}: {last!r} isn't there")


def _step(here: Any, step: str, key: str, *, make: bool) -> Any:
    if isinstance(here, list) and step.isdigit() and int(step) < len(here):
        return here[int(step)]
    if isinstance(here, dict):
        if make and here.get(step) is None:
            here[step] = {}
        return here[step]
    raise bad_input("--set finds no such place", f"{key}: {step!r} isn't there")


def _values(spec: dict[str, Any], fields: Any) -> Iterator[tuple[str, str]]:
    """The fields that the spec has, with their values."""
    for field in fields:
        here: Any = spec
        for step in field.split("."):
            here = here.get(step) if isinstance(here, dict) else None
        if isinstance(here, str):
            yield field, here


def _replaced(spec: dict[str, Any], field: str, value: str) -> dict[str, Any]:
    step, _, rest = field.partition(".")
    return spec | {step: _replaced(spec[step], rest, value) if rest else value}


def _is_path(value: str) -> bool:
    """Whether a person who wrote this meant a path: ids and names of models look otherwise."""
    files = (".jsonl", ".json", ".csv", ".parquet")
    return value.startswith((".", "/", "~")) or value.endswith(files)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
