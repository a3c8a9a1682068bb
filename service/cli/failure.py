"""How a command fails: words for a person, a document for a program, a code for a script."""

from typing import Any

JOB_FAILED = 1
BAD_INPUT = 2
UNREACHABLE = 3
INTERRUPTED = 130


class Failure(Exception):  # noqa: N818 - an outcome that the command line reports
    """Ends the command. `document` is an RFC 9457 problem document, or has its form."""

    def __init__(self, document: dict[str, Any], code: int) -> None:
        super().__init__(document.get("title", ""))
        self.document = document
        self.code = code

    def lines(self) -> list[str]:
        """Title, detail, and a line for each thing that is wrong."""
        errors = [
            f"  {error.get('location', '?')}: {error.get('message', '')}"
            for error in self.document.get("errors", [])
        ]
        # The detail of a document with errors repeats the first few of them.
        detail = [f"  {line}" for line in str(self.document.get("detail", "")).splitlines()]
        return [f"error: {self.document.get('title', 'failed')}", *(errors or detail)]


def bad_input(title: str, detail: str = "", errors: list[dict[str, str]] | None = None) -> Failure:
    """What the user gave can't be used."""
    document: dict[str, Any] = {"title": title, "detail": detail}
    return Failure(document | ({"errors": errors} if errors else {}), BAD_INPUT)


def unreachable(url: str, why: str) -> Failure:
    """No API answers."""
    detail = (
        f"{url}: {why}\nIs `retort up` running? Otherwise say where with --url or RETORT_API_URL."
    )
    return Failure({"title": "The API can't be reached", "detail": detail}, UNREACHABLE)


def refused(document: dict[str, Any]) -> Failure:
    """The API answered with a problem document; 503 says that it can't work just now."""
    return Failure(document, UNREACHABLE if document.get("status") == 503 else BAD_INPUT)
