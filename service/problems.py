"""What goes wrong, said so that a person can act: raised by the service's functions, answered as
RFC 9457 problem documents, shown as they are by the command line."""

import math
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True)
class Fault:
    """One thing wrong in the input, and where."""

    location: str
    """Dotted path into the request: `build.sampling.max_tokens`; `line 7` in a file."""
    message: str

    def as_json(self) -> dict[str, str]:
        """The form it has in a problem document."""
        return {"location": self.location, "message": self.message}


class Problem(Exception):  # noqa: N818 - it is a problem document first
    """An error with a name, an HTTP status and advice. Not a bug: bugs raise anything else."""

    def __init__(
        self,
        status: int,
        type: str,
        title: str,
        detail: str,
        faults: tuple[Fault, ...] = (),
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(f"{title}: {detail}")
        self.status = status
        self.type = type
        self.title = title
        self.detail = detail
        self.faults = faults
        self.retry_after_s = retry_after_s

    @property
    def headers(self) -> dict[str, str]:
        """What its answer's headers say."""
        return {} if self.retry_after_s is None else {"Retry-After": str(self.retry_after_s)}

    def document(self, instance: str) -> dict[str, Any]:
        """The RFC 9457 document; `instance` is the path that was asked for."""
        body: dict[str, Any] = {
            "type": f"urn:retort:problem:{self.type}",
            "code": self.type,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "instance": instance,
        }
        if self.faults:
            body["errors"] = [fault.as_json() for fault in self.faults]
        return body


def not_found(noun: str, name: str, known: list[str]) -> Problem:
    """404, with names near the one that was asked for."""
    near = get_close_matches(name, known, n=3, cutoff=0.5)
    advice = f" Did you mean {' or '.join(near)}?" if near else ""
    if not near and known:
        advice = f" There is: {', '.join(known[:10])}{', …' if len(known) > 10 else ''}."
    return Problem(404, "not-found", f"No such {noun}", f"There is no {noun} {name!r}.{advice}")


def bad_input(faults: list[Fault], title: str = "The job can't run like this") -> Problem:
    """422: the request was understood, and something in it can't work."""
    detail = "; ".join(f"{fault.location}: {fault.message}" for fault in faults[:5])
    return Problem(422, "bad-input", title, detail, tuple(faults))


def conflict(title: str, detail: str) -> Problem:
    """409: the request contradicts something that stands."""
    return Problem(409, "conflict", title, detail)


def too_many(type: str, title: str, detail: str, retry_after_s: float) -> Problem:
    """429: a limit is reached; the answer's `Retry-After` says when to come back."""
    return Problem(429, type, title, detail, retry_after_s=max(1, math.ceil(retry_after_s)))


def disk_full(detail: str) -> Problem:
    """507: no room on the disk of the data directory."""
    return Problem(507, "disk-full", "Not enough disk space", detail)
