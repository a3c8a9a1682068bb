"""Commands about uploaded files: list, download."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from service.cli.failure import bad_input
from service.cli.options import Cursor, Json, Limit, Url, Versions, connect, screen

app = typer.Typer(help="Uploaded files, and outputs of batches.", no_args_is_help=True)

Reference = Annotated[
    str, typer.Argument(metavar="FILE", help="An id, name or name@version.", show_default=False)
]


@app.command("list")
def list_files(
    name: Versions = None,
    limit: Limit = 50,
    cursor: Cursor = None,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """List files, newest first."""
    page = connect(url).get("/files", name=name, limit=limit, cursor=cursor)
    out = screen(as_json)
    if as_json:
        out.document(page)
        return
    table = Table(box=None, header_style="bold")
    for column in ("id", "name", "version", "purpose", "rows", "bytes"):
        table.add_column(column)
    for each in page["artifacts"]:
        facts = [str(each["summary"].get(one, "")) for one in ("purpose", "rows")]
        table.add_row(each["id"], each["name"], str(each["version"]), *facts, f"{each['bytes']:,}")
    out.console.print(table if page["artifacts"] else "no files")
    out.say_more(page)


@app.command("download")
def download_file(
    reference: Reference,
    to: Annotated[Path | None, typer.Option("--out", help="Its own name by default.")] = None,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """Download a file, as it came."""
    api, out = connect(url), screen(as_json)
    found = api.get(f"/files/{reference}")
    target = to or Path(Path(found["name"]).name)
    if target.exists():
        raise bad_input("The place is taken", f"{target} is there; give another with --out")
    api.save(f"/files/{found['id']}/content", target)
    if as_json:
        out.document(found | {"out": str(target)})
    out.say(f"{found['id']} is in {target}")
