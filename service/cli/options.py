"""What all commands have in common: their options, and what they write."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console

from service import settings as environment
from service.cli.client import Api, api_url
from service.cli.failure import bad_input

Json = Annotated[bool, typer.Option("--json", help="Write JSON for programs.")]
Url = Annotated[
    str | None,
    typer.Option("--url", help="The API; by default RETORT_API_URL, or the stack that is up."),
]
Follow = Annotated[
    bool, typer.Option("--follow", "-f", help="Show progress until it ends; Ctrl-C leaves it be.")
]

Limit = Annotated[int, typer.Option("--limit", min=1, max=500, help="Rows at most.")]
Cursor = Annotated[
    str | None, typer.Option("--cursor", help="Go on behind this: the page before names it.")
]
Versions = Annotated[str | None, typer.Option("--name", help="Only versions of this name.")]


@dataclass(frozen=True)
class Screen:
    """Where a command writes: text for people, or one JSON document a line."""

    json: bool
    console: Console

    def document(self, data: Any) -> None:
        """One JSON document on a line of its own."""
        sys.stdout.write(json.dumps(data, ensure_ascii=False) + "\n")
        sys.stdout.flush()

    def say(self, text: str) -> None:
        """A line for people; nothing with --json."""
        if not self.json:
            self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def say_more(self, page: dict[str, Any]) -> None:
        """How to see the next page of a list, where there is one."""
        if page["next"]:
            self.say(f"more: --cursor {page['next']}")


def screen(as_json: bool) -> Screen:
    """A command's screen."""
    return Screen(as_json, Console())


def connect(url: str | None) -> Api:
    """The API to talk to. Raises Failure for settings that can't be."""
    settings = load_settings()
    key = settings.api_key.get_secret_value() if settings.api_key is not None else None
    return Api(api_url(url, settings), key=key)


def load_settings(data_dir: Path | None = None) -> environment.Settings:
    """The environment's settings. Raises Failure where they make no sense."""
    try:
        loaded = environment.load()
    except ValidationError as error:
        faults = [
            {"location": f"RETORT_{'.'.join(map(str, one['loc'])).upper()}", "message": one["msg"]}
            for one in error.errors()
        ]
        raise bad_input("The settings can't be used", errors=faults) from error
    return (
        loaded if data_dir is None else loaded.model_copy(update={"data_dir": data_dir.absolute()})
    )
