"""What `retort up` tells others about itself: a file in the data directory, for its user only."""

import os
from pathlib import Path

from pydantic import Field, ValidationError

from prompts.record import Frozen

FILE = "runtime.json"


class Runtime(Frozen):
    """A stack that is up, or coming up while `ready` is false."""

    pid: int
    """Of the supervisor."""
    url: str
    """Where the API listens."""
    data_dir: str
    broker: str
    started_at: str
    ready: bool = False
    parts: dict[str, int] = Field(default_factory=dict)
    """Name of each part -> pid of its keeper."""


def read(data_dir: Path) -> Runtime | None:
    """The stack of this data directory as it last described itself; None if there is nothing
    readable. The file outlives a supervisor that was killed: see `alive`."""
    try:
        return Runtime.model_validate_json((data_dir / FILE).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def alive(runtime: Runtime) -> bool:
    """Whether a process with the supervisor's pid exists."""
    return Path(f"/proc/{runtime.pid}").exists()


def write(data_dir: Path, runtime: Runtime) -> None:
    """Replace the file as a whole, readable by its user only."""
    draft = data_dir / f".{FILE}.{os.getpid()}"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(runtime.model_dump_json(indent=2) + "\n")
    draft.replace(data_dir / FILE)


def remove(data_dir: Path) -> None:
    """The stack is down."""
    (data_dir / FILE).unlink(missing_ok=True)
