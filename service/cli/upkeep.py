"""`retort gc`, `backup` and `restore`. The last two work on the installation itself: they are for
whoever may read its database anyway."""

from collections import defaultdict
from pathlib import Path
from typing import Annotated

import typer

from service import backup, runtime
from service.cli.failure import bad_input
from service.cli.installation import installation
from service.cli.options import Json, Url, connect, screen

WORDS = {
    "ledger": "ledgers of ended jobs",
    "checkpoints": "checkpoints of ended jobs",
    "logs": "work folders of ended jobs",
    "cache": "cached completions",
    "file": "files that nothing refers to",
    "left_behind": "left behind by a crash",
    "mirror": "artifacts in the mirror that nobody read for long",
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


def back_up(
    file: Annotated[Path, typer.Argument(help="What to write; must not exist.", dir_okay=False)],
    as_json: Json = False,
) -> None:
    """Write the whole installation to one file, while it works. It holds the installation's secret:
    keep it as safe as the data directory."""
    with installation() as site:
        size = backup.backup(site, file)
    out = screen(as_json)
    if as_json:
        out.document({"file": str(file), "bytes": size})
    out.say(f"{file}, {size:,} bytes")


def bring_back(
    file: Annotated[Path, typer.Argument(help="What `retort backup` wrote.", exists=True)],
    as_json: Json = False,
) -> None:
    """Fill a new installation from a backup; jobs that were under way go on with `retort up`."""
    with installation() as site:
        found = runtime.read(site.settings.data_dir)
        if found is not None and runtime.alive(found):
            raise bad_input("The stack is up", f"{found.data_dir}, pid {found.pid}: retort down")
        restored = backup.restore(site, file)
    out = screen(as_json)
    if as_json:
        out.document(restored.model_dump(mode="json"))
    out.say(f"{restored.jobs:,} jobs as of {restored.at:%Y-%m-%d %H:%M} UTC")
    out.say(f"  {restored.unfinished:,} go on when the stack is up")
    for name in restored.missing:
        out.say(f"  {name} is not there, or not whole: deleted as, or since, the backup was made")
