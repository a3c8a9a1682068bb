"""Commands about reports: list, show, download, open."""

import webbrowser
from typing import Annotated

import typer
from rich.markdown import Markdown

from service.addresses import API
from service.cli.artifacts import Out, download, list_command
from service.cli.client import Api
from service.cli.failure import bad_input
from service.cli.options import Json, Url, connect, screen

list_reports = list_command("reports", ())


def report(
    reference: Annotated[
        str, typer.Argument(metavar="JOB|REPORT", help="A report, or a job that one tells of.")
    ],
    to_open: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    out: Out = None,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """Show a report; with --out download it, with --open look at it in the browser."""
    api, display = connect(url), screen(as_json)
    found = api.get(f"/reports/{_report_id(api, reference)}")
    page = f"{api.url}{API}/reports/{found['id']}/report.html"
    if out is not None:
        download(api, f"/reports/{found['id']}/download", out)
    if as_json:
        display.document(found | {"page": page} | ({"out": str(out)} if out else {}))
        return
    if to_open:
        webbrowser.open(page)
    text = api.text(f"/reports/{found['id']}/files/report.md")
    if display.console.is_terminal:
        display.console.print(Markdown(text))
    else:
        display.say(text)
    display.say(f"page: {page}")
    display.say(f"files: {out or found['location']}")


def _report_id(api: Api, reference: str) -> str:
    if not reference.startswith("job-"):
        return reference
    job = api.get(f"/jobs/{reference}")
    if not job["report_id"]:
        raise bad_input("No report yet", f"{reference} is {job['state']} and has no report")
    return str(job["report_id"])
