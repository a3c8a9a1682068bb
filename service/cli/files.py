"""Commands about uploaded files: list, download, delete."""

from pathlib import Path
from typing import Annotated

import typer

from service.cli.artifacts import list_command
from service.cli.failure import bad_input
from service.cli.options import Json, Url, connect, screen

app = typer.Typer(help="Uploaded files, and outputs of batches.", no_args_is_help=True)

Reference = Annotated[
    str, typer.Argument(metavar="FILE", help="An id, name or name@version.", show_default=False)
]


app.command("list")(list_command("files", ("purpose", "rows")))


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


@app.command("delete")
def delete_file(reference: Reference, as_json: Json = False, url: Url = None) -> None:
    """Delete a file that no schedule and no job under way needs."""
    connect(url).delete(f"/files/{reference}")
    out = screen(as_json)
    if as_json:
        out.document({"deleted": reference})
    out.say(f"deleted {reference}")
