"""Commands about the rows of a dataset: read, search, judge."""

from typing import Annotated, Any

import typer

from service.cli.failure import bad_input
from service.cli.options import Json, Screen, Url, connect, screen

Reference = Annotated[
    str, typer.Argument(metavar="REF", help="An id, name or name@version.", show_default=False)
]
Search = Annotated[str | None, typer.Option(help="Text that they hold.")]
Kind = Annotated[str | None, typer.Option(help="icl, cot or if.")]
Limit = Annotated[int, typer.Option(min=1, max=1000)]
Cursor = Annotated[str | None, typer.Option(help="`next` of the page before.")]


def show_rows(
    reference: Reference,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "train",
    kind: Kind = None,
    search: Search = None,
    limit: Limit = 20,
    cursor: Cursor = None,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """Show accepted rows, filtered and searched."""
    query = {"split": split, "kind": kind, "q": search, "limit": limit, "cursor": cursor}
    _page(screen(as_json), connect(url).get(f"/datasets/{reference}/rows", **query))


def show_rejected(
    reference: Reference,
    reason: Annotated[str | None, typer.Option(help="Such as wrong_answer.")] = None,
    kind: Kind = None,
    search: Search = None,
    limit: Limit = 20,
    cursor: Cursor = None,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """Show rows that were not accepted, and why."""
    query = {"reason": reason, "kind": kind, "q": search, "limit": limit, "cursor": cursor}
    _page(screen(as_json), connect(url).get(f"/datasets/{reference}/rejected", **query))


def judge(
    reference: Reference,
    accept: Annotated[list[str] | None, typer.Option(help="Id of a row; again for more.")] = None,
    reject: Annotated[list[str] | None, typer.Option(help="Id of a row; again for more.")] = None,
    note: Annotated[str, typer.Option(help="Why; kept with rejected rows.")] = "",
    as_json: Json = False,
    url: Url = None,
) -> None:
    """Accept or reject rows by hand: makes a new version of the dataset."""
    verdicts = [
        {"id": one, "accept": verdict, "note": note}
        for verdict, ids in ((True, accept), (False, reject))
        for one in ids or ()
    ]
    if not verdicts:
        raise bad_input("No verdict", "give rows with --accept or --reject")
    found = connect(url).post(f"/datasets/{reference}/review", {"verdicts": verdicts})
    out = screen(as_json)
    if as_json:
        out.document(found)
    out.say(f"{found['name']} version {found['version']} ({found['id']})")


def _turn(message: dict[str, Any]) -> str:
    """A turn's text, with the functions that it calls."""
    calls = [each["function"] for each in message.get("tool_calls") or ()]
    called = [f"{each['name']}({each['arguments']})" for each in calls]
    return "\n".join([*([message["content"]] if message["content"] else []), *called])


def say_row(out: Screen, row: dict[str, Any]) -> None:
    """A row as a reader wants it: prompt, answer, verdict."""
    verdict = f"  {row['end']}: {row['reason']}  {row['detail']}" if "reason" in row else ""
    out.say(f"--- {row['id']}{verdict}".rstrip())
    for message in (*row["prompt"], *row.get("completion", ())):
        out.say(f"{message['role']}: {_turn(message)}")
    for said in row.get("raw", ()):
        out.say(f"said: {said}")


def _page(out: Screen, page: dict[str, Any]) -> None:
    if out.json:
        out.document(page)
        return
    for row in page["rows"]:
        say_row(out, row)
    if not page["rows"]:
        out.say("no such rows")
    if page["next"]:
        out.say(f"more: --cursor {page['next']}")
