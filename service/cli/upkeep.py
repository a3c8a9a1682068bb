"""`retort gc`: what is old and needed by nothing."""

from collections import defaultdict
from typing import Annotated

import typer

from service.cli.options import Json, Url, connect, screen

WORDS = {
    "ledger": "ledgers of ended jobs",
    "checkpoints": "checkpoints of ended jobs",
    "logs": "work folders of ended jobs",
    "cache": "cached completions",
    "file": "files that nothing refers to",
    "left_behind": "left behind by a crash",
}


def collect_garbage(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be deleted.")
    ] = False,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """Delete what the settings RETORT_KEEP_..._DAYS give up, as the stack does each hour."""
    found, out = connect(url).post("/gc", dry_run=dry_run), screen(as_json)
    if as_json:
        out.document(found)
        return
    sizes: defaultdict[str, list[int]] = defaultdict(list)
    for waste in found["waste"]:
        sizes[waste["kind"]].append(waste["bytes"])
    for kind, each in sizes.items():
        out.say(f"{len(each):>8,} {WORDS[kind]}, {sum(each):,} bytes")
    verb = "would be deleted" if dry_run else "deleted"
    out.say(f"{found['bytes']:,} bytes {verb}" if sizes else "nothing to delete")
