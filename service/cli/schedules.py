"""Commands about schedules: create, list, show, run, pause, resume, delete."""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from service.cli.options import Cursor, Json, Limit, Screen, Url, connect, screen
from service.cli.recipes import check_paths, read_recipe, send_files

app = typer.Typer(help="Jobs that run again and again.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Its name or id.", show_default=False)]


@app.command("create")
def create(
    name: Name,
    recipe: Annotated[Path, typer.Argument(help="A YAML file.", show_default=False)],
    cron: Annotated[str, typer.Option(help="minute hour day month weekday: '30 2 * * *'.")],
    time_zone: Annotated[str, typer.Option(help="Such as Europe/Berlin.")] = "UTC",
    overlap: Annotated[
        str, typer.Option(help="While the last run goes on: skip or queue.")
    ] = "skip",
    missed: Annotated[
        str, typer.Option(help="For slots when nothing was up: skip, one or all.")
    ] = "skip",
    incremental: Annotated[
        bool, typer.Option("--incremental", help="Builds take only seeds that are new.")
    ] = False,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="Change a value: train.name=small.")
    ] = None,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """Submit a recipe by cron; files that it names are uploaded once, now."""
    out, loaded = screen(as_json), read_recipe(recipe, changes or [])
    check_paths(loaded)
    api = connect(url)
    wanted = {
        "name": name,
        "cron": cron,
        "time_zone": time_zone,
        "overlap": overlap,
        "missed": missed,
        "incremental": incremental,
        "job": send_files(loaded, api, out.say),
    }
    _show(out, api.post("/schedules", wanted))


@app.command("list")
def list_schedules(
    limit: Limit = 50, cursor: Cursor = None, as_json: Json = False, url: Url = None
) -> None:
    """List schedules with when they run next, newest first."""
    page, out = connect(url).get("/schedules", limit=limit, cursor=cursor), screen(as_json)
    if as_json:
        out.document(page)
        return
    table = Table(box=None, header_style="bold")
    for column in ("name", "cron", "zone", "job", "next"):
        table.add_column(column, overflow="fold")
    for each in page["schedules"]:
        first = _local(each["coming"][0]) if each["coming"] else "paused"
        table.add_row(each["name"], each["cron"], each["time_zone"], each["spec"]["kind"], first)
    out.console.print(table if page["schedules"] else "no schedules")
    out.say_more(page)


@app.command("show")
def show(name: Name, as_json: Json = False, url: Url = None) -> None:
    """Show a schedule: when it runs next, and what became of its last slots."""
    _show(screen(as_json), connect(url).get(f"/schedules/{name}"))


@app.command("runs")
def runs(
    name: Name,
    state: Annotated[str | None, typer.Option(help="Such as failed.")] = None,
    limit: Limit = 20,
    cursor: Cursor = None,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """List what became of its slots, newest first."""
    query = {"state": state, "limit": limit, "cursor": cursor}
    page, out = connect(url).get(f"/schedules/{name}/runs", **query), screen(as_json)
    if as_json:
        out.document(page)
    for each in page["runs"]:
        out.say(_run(each))
    out.say_more(page)


@app.command("run")
def run(name: Name, as_json: Json = False, url: Url = None) -> None:
    """Run it once now, besides its slots."""
    out, found = screen(as_json), connect(url).post(f"/schedules/{name}/run")
    if as_json:
        out.document(found)
    out.say(_run(found))


@app.command("pause")
def pause(name: Name, as_json: Json = False, url: Url = None) -> None:
    """Let no slot be due until it is resumed."""
    _show(screen(as_json), connect(url).post(f"/schedules/{name}/pause"))


@app.command("resume")
def resume(name: Name, as_json: Json = False, url: Url = None) -> None:
    """Go on with the next slot."""
    _show(screen(as_json), connect(url).post(f"/schedules/{name}/resume"))


@app.command("delete")
def delete(name: Name, as_json: Json = False, url: Url = None) -> None:
    """Forget a schedule; the jobs that it made stay."""
    connect(url).delete(f"/schedules/{name}")
    out = screen(as_json)
    if as_json:
        out.document({"deleted": name})
    out.say(f"deleted {name}")


def _show(out: Screen, found: dict[str, Any]) -> None:
    if out.json:
        out.document(found)
        return
    out.say(f"schedule {found['name']} ({found['id']})  {found['cron']}  {found['time_zone']}")
    out.say(f"  submits   {found['spec']['kind']}{', incremental' * found['incremental']}")
    out.say(f"  overlap   {found['overlap']}   missed {found['missed']}")
    coming = ", ".join(map(_local, found["coming"])) or "nothing: it is paused"
    out.say(f"  next      {coming}")
    for each in found.get("runs", []):
        out.say(f"  {_run(each)}")


def _run(run: dict[str, Any]) -> str:
    what = run["job_id"] or run["detail"] or ""
    return f"{_local(run['slot_utc'])}  {run['state']:<9} {what}".rstrip()


def _local(moment: str) -> str:
    return f"{datetime.fromisoformat(moment).astimezone():%Y-%m-%d %H:%M}"
