"""Commands about jobs that are there: show, pause, resume, retry, clone; and preview, for none."""

import uuid
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.table import Table

from prompts.yaml_text import read_yaml
from service.cli.failure import bad_input
from service.cli.jobs import Job, list_jobs
from service.cli.options import Json, Screen, Url, connect, screen
from service.cli.recipes import check_paths, read_recipe, send_files
from service.cli.story import ending

SHOWN = 200

jobs_app = typer.Typer(help="List jobs, or show one.")
Changes = Annotated[
    list[str] | None, typer.Option("--set", help="Change a value: build.sampling.temperature=0.7")
]


@jobs_app.callback(invoke_without_command=True)
def jobs(
    context: typer.Context,
    state: Annotated[
        str | None, typer.Option(help="queued, running, paused, succeeded, failed or cancelled.")
    ] = None,
    kind: Annotated[str | None, typer.Option(help="recipe, build, train, …")] = None,
    parent: Annotated[str | None, typer.Option(help="Only parts of this recipe's job.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500)] = 20,
    cursor: Annotated[str | None, typer.Option(help="`next` of the page before.")] = None,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """List jobs, newest first."""
    if context.invoked_subcommand is None:
        filters = {"state": state, "kind": kind, "parent": parent}
        list_jobs(filters | {"limit": limit, "cursor": cursor}, as_json, url)


@jobs_app.command("show")
def show(job: Job, as_json: Json = False, url: Url = None) -> None:
    """Show how a job stands, and the rows that a smoke gate stopped at."""
    out, api = screen(as_json), connect(url)
    found = api.get(f"/jobs/{job}")
    rows = _gate_rows(api.get(f"/jobs/{job}/pauses")) if found["state"] == "paused" else []
    if as_json:
        out.document(found | {"rows": rows})
        return
    out.say(f"{found['kind']} {found['id']} ({found['name']}) {ending(found)}")
    if found["schedule_id"]:
        out.say(f"  schedule  {found['schedule_id']}")
    for name in ("progress", "result"):
        if found[name]:
            out.say(f"  {name:<9} {_pairs(found[name])}")
    _rows(out, rows)


def pause(job: Job, as_json: Json = False, url: Url = None) -> None:
    """Hold a build up, or a training or compression, which goes on from its last checkpoint."""
    _told(screen(as_json), connect(url).post(f"/jobs/{job}/pause"))


def resume(job: Job, as_json: Json = False, url: Url = None) -> None:
    """Let a paused job go on."""
    _told(screen(as_json), connect(url).post(f"/jobs/{job}/resume"))


def clone(job: Job, changes: Changes = None, as_json: Json = False, url: Url = None) -> None:
    """Submit a job again, with edits."""
    body = {"set": _edits(changes or [])}
    key = uuid.uuid4().hex
    _told(screen(as_json), connect(url).post(f"/jobs/{job}/clone", body, key=key))


def retry(
    job: Job,
    spec: Annotated[
        Path | None, typer.Option(help="A recipe whose build takes the old one's place.")
    ] = None,
    reason: Annotated[
        list[str] | None, typer.Option(help="Only rows rejected for this; again for more.")
    ] = None,
    changes: Changes = None,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """Ask the rejected rows of a finished build again, as a build of their own."""
    body: dict[str, Any] = {"set": _edits(changes or []), "reasons": reason or []}
    if spec is not None:
        body["build"] = _build_of(spec)
    key = uuid.uuid4().hex
    _told(screen(as_json), connect(url).post(f"/jobs/{job}/retry", body, key=key))


def preview(
    recipe: Annotated[Path, typer.Argument(help="A YAML file.", show_default=False)],
    rows: Annotated[int, typer.Option("-n", "--rows", min=1, max=50)] = 10,
    changes: Changes = None,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """Ask a recipe's first rows: rendered prompts, answers, verdicts, and no job."""
    out = screen(as_json)
    loaded = read_recipe(recipe, changes or [])
    check_paths(loaded)
    api = connect(url)
    found = api.post("/jobs/preview", {"spec": send_files(loaded, api, out.say), "rows": rows})
    if as_json:
        out.document(found)
        return
    for row in found["rows"]:
        _row(out, row)
    tokens = f"{found['prompt_tokens']:,} + {found['completion_tokens']:,} tokens"
    accepted = sum(row["end"] == "accepted" for row in found["rows"])
    out.say(f"{accepted} of {len(found['rows'])} accepted, {tokens}, {found['seconds']:.1f} s")


def _row(out: Screen, row: dict[str, Any]) -> None:
    verdict = row["end"] if row["reason"] is None else f"{row['end']}: {row['reason']}"
    out.say(f"--- {row['id']}  {verdict}  {row['detail']}".rstrip())
    for turn in row["prompt"]:
        out.say(f"{turn['role']}: {turn['content']}")
    for call in row["calls"]:
        out.say(f"{call['teacher']} says: {call['text'] or call['error']}")
    if row["answer"] is not None:
        out.say(f"answer {row['answer']}, gold {row['gold']}")


def _rows(out: Screen, rows: list[dict[str, Any]]) -> None:
    if not rows:
        return
    table = Table(box=None, header_style="bold")
    for column in ("row", "end", "prompt", "said"):
        table.add_column(column, overflow="fold")
    for row in rows:
        end = f"{row['end']} {row['reason'] or ''} {row['detail'] or ''}".strip()
        table.add_row(row["id"], end, row["prompt"][:SHOWN], row["said"][:SHOWN])
    out.console.print(table)


def _gate_rows(pauses: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return list(pauses[-1]["data"].get("rows", [])) if pauses else []


def _told(out: Screen, job: dict[str, Any]) -> None:
    if out.json:
        out.document(job)
    soon = ", pauses once its checkpoint is written" if job.get("pause_requested") else ""
    out.say(f"{job['kind']} {job['id']} ({job['name']}) {job['state']}{soon}")


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _edits(changes: list[str]) -> dict[str, Any]:
    found = {}
    for change in changes:
        path, equals, text = change.partition("=")
        if not equals or not path:
            raise bad_input("--set takes key=value", f"{change!r} has no `=`")
        found[path] = read_yaml(text)
    return found


def _build_of(path: Path) -> dict[str, Any]:
    try:
        spec = read_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise bad_input("The recipe can't be read", f"{path}: {error}") from error
    build = spec.get("build", spec) if isinstance(spec, dict) else None
    if not isinstance(build, dict):
        raise bad_input("The recipe has no build", f"{path} must hold `build:` or its fields")
    return build
