"""`retort status`: what works of the service, as the API sees it."""

import typer

from service.cli.failure import JOB_FAILED
from service.cli.options import Json, Url, connect, screen


def status(as_json: Json = False, url: Url = None) -> None:
    """Show what works, of the service and its teachers; exits with 1 if jobs start late."""
    found, out = connect(url).health(), screen(as_json)
    if as_json:
        out.document(found)
    out.say(found["status"])
    for part in ("database", "artifacts", "broker"):
        out.say(f"  {part:<9} {'ok' if found[part] else 'away'}")
    for queue, workers in found["workers"].items():
        out.say(f"  {queue:<9} {workers} {'worker' if workers == 1 else 'workers'}")
    for teacher, well in found["teachers"].items():
        out.say(f"  teacher   {teacher} {'ok' if well else 'did not answer its last probe'}")
    if found["status"] != "ok":
        raise typer.Exit(JOB_FAILED)
