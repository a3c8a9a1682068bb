"""Commands about teachers: add, list, show, probe, remove."""

from typing import Annotated, Any

import typer
from rich.table import Table

from service.cli.failure import JOB_FAILED
from service.cli.options import Json, Screen, Url, connect, screen

app = typer.Typer(help="Servers that answer prompts.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="What builds call it by.", show_default=False)]


@app.command("add")
def add(
    name: Name,
    base_url: Annotated[str, typer.Argument(help="Such as http://127.0.0.1:8000/v1")],
    served_model: Annotated[str, typer.Option(help="The model's name on that server.")],
    api_key_env: Annotated[
        str | None, typer.Option(help="Variable of API and workers that holds the key.")
    ] = None,
    store_key: Annotated[
        bool, typer.Option("--store-key", help="Ask for the key here; it is stored encrypted.")
    ] = False,
    licence: Annotated[str | None, typer.Option(help="Note on training on its output.")] = None,
    model: Annotated[str | None, typer.Option(help="Directory of its weights, if at hand.")] = None,
    max_in_flight: Annotated[
        int | None, typer.Option(help="Most requests at once, over all jobs.")
    ] = None,
    gpus: Annotated[int | None, typer.Option(help="GPUs of its server, for budgets.")] = None,
    price_prompt: Annotated[float | None, typer.Option(help="Of a million tokens.")] = None,
    price_completion: Annotated[float | None, typer.Option(help="Of a million tokens.")] = None,
    check: Annotated[bool, typer.Option(help="Ask it for one token first.")] = True,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """Register a teacher, or replace the one of that name."""
    wanted = {
        "name": name,
        "base_url": base_url,
        "served_model": served_model,
        "api_key_env": api_key_env,
        "api_key": typer.prompt("Key", hide_input=True) if store_key else None,
        "licence": licence,
        "model": model,
        "max_in_flight": max_in_flight,
        "gpus": gpus,
        "price_prompt": price_prompt,
        "price_completion": price_completion,
    }
    _show(screen(as_json), connect(url).post("/teachers", wanted, check=check))


@app.command("list")
def list_teachers(as_json: Json = False, url: Url = None) -> None:
    """List teachers with what their last probe found."""
    found, out = connect(url).all("/teachers", "teachers"), screen(as_json)
    if as_json:
        out.document(found)
        return
    table = Table(box=None, header_style="bold")
    for column in ("name", "address", "model", "probe"):
        table.add_column(column, overflow="fold")
    for each in found:
        table.add_row(each["name"], each["base_url"], each["served_model"], _probe(each["probe"]))
    out.console.print(table if found else "no teachers")


@app.command("show")
def show(name: Name, as_json: Json = False, url: Url = None) -> None:
    """Show a teacher and what its last probe found."""
    _show(screen(as_json), connect(url).get(f"/teachers/{name}"))


@app.command("probe")
def probe(name: Name, as_json: Json = False, url: Url = None) -> None:
    """Ask a teacher for one token; exits with 1 if it doesn't answer."""
    found = connect(url).post(f"/teachers/{name}/probe")
    _show(screen(as_json), found)
    if not found["probe"].get("ok"):
        raise typer.Exit(JOB_FAILED)


@app.command("remove")
def remove(name: Name, as_json: Json = False, url: Url = None) -> None:
    """Forget a teacher; datasets that it made stay."""
    connect(url).delete(f"/teachers/{name}")
    out = screen(as_json)
    if as_json:
        out.document({"removed": name})
    out.say(f"removed {name}")


def _show(out: Screen, found: dict[str, Any]) -> None:
    if out.json:
        out.document(found)
    out.say(f"teacher {found['name']}  {found['base_url']}  model {found['served_model']}")
    out.say(f"  {_probe(found['probe'])}")


def _probe(probe: dict[str, Any]) -> str:
    if not probe:
        return "not asked yet"
    if not probe.get("ok"):
        return f"does not answer: {probe.get('error')}"
    return f"ok, context {probe.get('context_tokens')}, logprobs up to {probe.get('max_logprobs')}"
