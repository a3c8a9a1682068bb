"""Commands about jobs: run, serve, jobs, watch, log, cancel."""

import uuid
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from service.cli.client import Api
from service.cli.failure import JOB_FAILED
from service.cli.follow import ending, exit_code, follow
from service.cli.options import Follow, Json, Screen, Url, connect, screen
from service.cli.recipes import check_paths, read_recipe, send_files

Job = Annotated[str, typer.Argument(metavar="JOB", help="The job's id.", show_default=False)]


ExitStatus = Annotated[
    bool,
    typer.Option(
        "--exit-status/--no-exit-status",
        help="End with 1 if the job failed, or waits for a person; without it, with 0.",
    ),
]


def run(
    recipe: Annotated[Path, typer.Argument(help="A YAML file.", show_default=False)],
    to_follow: Follow = False,
    exit_status: ExitStatus = True,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="Change a value: train.name=small.")
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="Idempotency key: the same one makes the job only once.")
    ] = None,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """Submit a recipe or a job from a YAML file; files that it names are uploaded."""
    out = screen(as_json)
    loaded = read_recipe(recipe, changes or [])
    check_paths(loaded)
    api = connect(url)
    spec = send_files(loaded, api, out.say)
    job = api.post("/jobs", spec, key=key or uuid.uuid4().hex)
    out.say(f"submitted {job['kind']} {job['id']} ({job['name']})")
    if to_follow:
        _show_to_the_end(api, job["id"], out, exit_status)
    elif as_json:
        out.document(job)
    else:
        out.say(f"watch it with: retort watch {job['id']}")


def serve(
    model: Annotated[str, typer.Argument(help="Directory, model id or name.", show_default=False)],
    name: Annotated[
        str | None, typer.Option(help="What builds call it by; the model's own name by default.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="A free one by default.")] = None,
    max_model_len: Annotated[int | None, typer.Option(help="Context in tokens.")] = None,
    max_logprobs: Annotated[int, typer.Option(help="Most log-probabilities per token.")] = 20,
    to_follow: Follow = False,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """Serve a model with vLLM and register it as a teacher; returns when it answers."""
    out, api = screen(as_json), connect(url)
    local = Path(model).expanduser()
    spec = {
        "kind": "serve",
        "model": str(local.resolve()) if local.is_dir() else model,
        "name": name or Path(model).name,
        "port": port,
        "max_model_len": max_model_len,
        "max_logprobs": max_logprobs,
    }
    job = api.post("/jobs", spec, key=uuid.uuid4().hex)
    out.say(f"submitted serve {job['id']}")
    job = follow(api, job["id"], out, until=lambda seen: bool(seen["progress"].get("ready")))
    if job["state"] not in ("running", "succeeded"):
        _say_end(out, job)
        raise typer.Exit(JOB_FAILED)
    teacher = api.get(f"/teachers/{spec['name']}")
    if as_json:
        out.document({"job": job, "teacher": teacher})
    out.say(f"teacher {teacher['name']} answers at {teacher['base_url']}")
    out.say(f"stop it with: retort cancel {job['id']}")
    if to_follow:
        _show_to_the_end(api, job["id"], out)


def list_jobs(filters: dict[str, Any], as_json: bool, url: str | None) -> None:
    """List jobs, newest first."""
    page, out = connect(url).get("/jobs", **filters), screen(as_json)
    if as_json:
        out.document(page)
        return
    table = Table(box=None, header_style="bold")
    for column in ("job", "kind", "name", "state", "progress"):
        table.add_column(column, overflow="fold")
    for job in page["jobs"]:
        table.add_row(job["id"], job["kind"], job["name"], _state(job), _progress(job))
    out.console.print(table if page["jobs"] else "no jobs")
    if page["next"]:
        out.say(f"more: --cursor {page['next']}")


def watch(job: Job, exit_status: ExitStatus = True, as_json: Json = False, url: Url = None) -> None:
    """Show a job's progress until it ends; Ctrl-C leaves it be."""
    _show_to_the_end(connect(url), job, screen(as_json), exit_status)


def show_log(
    job: Job,
    tail: Annotated[
        int, typer.Option(min=1, max=8 << 20, help="So many bytes of each log's end.")
    ] = 1 << 16,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """Show what a job's processes wrote: its trainer, its vLLM, those of its parts."""
    out, text = screen(as_json), connect(url).text(f"/jobs/{job}/log?tail={tail}")
    if as_json:
        out.document({"job": job, "log": text})
    out.say(text or f"no process of {job} wrote a log that the API's host has")


def cancel(job: Job, as_json: Json = False, url: Url = None) -> None:
    """Ask a job and its parts to stop. What was finished is kept."""
    out = screen(as_json)
    found = connect(url).post(f"/jobs/{job}/cancel")
    if as_json:
        out.document(found)
    over = found["state"] in ("succeeded", "failed", "cancelled")
    out.say(f"{job} {found['state'] if over else 'is asked to stop'}")


def _show_to_the_end(api: Api, job_id: str, out: Screen, exit_status: bool = True) -> None:
    job = follow(api, job_id, out)
    if out.json:
        out.document({"job": job})
    _say_end(out, job)
    raise typer.Exit(exit_code(job) if exit_status else 0)


def _say_end(out: Screen, job: dict[str, Any]) -> None:
    out.say(f"{job['kind']} {job['id']} {ending(job)}")
    for name, value in job["result"].items():
        if name in ("dataset", "model", "models", "report"):
            out.say(f"  {name:<8} {', '.join(value) if isinstance(value, list) else value}")


def _state(job: dict[str, Any]) -> str:
    return f"{job['state']} ({job['reason']})" if job["reason"] else str(job["state"])


def _progress(job: dict[str, Any]) -> str:
    progress = job["progress"]
    if job["waiting_for"]:
        return f"waits for {job['waiting_for']}"
    if progress.get("done") is None:
        return str(progress.get("phase") or "") if job["state"] == "running" else ""
    total = f"/{progress['total']}" if progress.get("total") else ""
    return f"{progress['done']}{total} {progress.get('unit', '')}"
