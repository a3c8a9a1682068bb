"""The REST API as the commands use it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from service import runtime
from service.addresses import API, OPENAI, READY
from service.cli.failure import refused, unreachable
from service.settings import Settings

TIMEOUT = httpx.Timeout(30, connect=5, write=None)
CHAT_TIMEOUT = httpx.Timeout(None, connect=5)
LOOPBACK = {"127.0.0.1", "localhost", "::1"}
BLOCK_BYTES = 1 << 20


def api_url(given: str | None, settings: Settings) -> str:
    """Where the API is: as the command says, as the environment says, or as the stack that is up
    on the data directory says of itself."""
    if given is not None:
        return given.rstrip("/")
    if "api_url" not in settings.model_fields_set:
        found = runtime.read(settings.data_dir)
        if found is not None and runtime.alive(found):
            return found.url
    return settings.api_url.rstrip("/")


@dataclass(frozen=True)
class Event:
    """One server-sent event: something that happened to a job."""

    id: int
    type: str
    view: dict[str, Any]
    """id, job_id, type, data, at."""


class Api:
    """Requests to one API. Every method raises Failure: unreachable, or what the API refused."""

    def __init__(
        self, url: str, transport: httpx.BaseTransport | None = None, key: str | None = None
    ) -> None:
        self.url = url
        local = httpx.URL(url).host in LOOPBACK
        # A proxy of the environment can't reach this machine's own addresses.
        self._client = httpx.Client(
            base_url=f"{url}{API}",
            timeout=TIMEOUT,
            headers={"Authorization": f"Bearer {key}"} if key else None,
            transport=transport,
            trust_env=not local,
            # A command asks little: connections that stay open would only be left open.
            limits=httpx.Limits(max_keepalive_connections=0),
        )

    def get(self, path: str, **query: Any) -> Any:
        """The JSON answer of a GET."""
        return self._ask("GET", path, params=_given(query))

    def all(self, path: str, noun: str) -> list[Any]:
        """Every row of a paged list; `noun` is the rows' name in a page."""
        rows: list[Any] = []
        cursor = None
        while True:
            page = self.get(path, limit=500, cursor=cursor)
            rows += page[noun]
            cursor = page["next"]
            if cursor is None:
                return rows

    def post(self, path: str, body: Any = None, *, key: str | None = None, **query: Any) -> Any:
        """The JSON answer of a POST; `key` makes it safe to repeat."""
        headers = {"Idempotency-Key": key} if key is not None else {}
        return self._ask("POST", path, json=body, headers=headers, params=_given(query))

    def patch(self, path: str, body: Any) -> Any:
        """The JSON answer of a PATCH."""
        return self._ask("PATCH", path, json=body)

    def chat(self, body: dict[str, Any]) -> dict[str, Any]:
        """What a teacher or a served model answers to a chat completion. Takes as long as that
        takes."""
        address = f"{self.url}{OPENAI}/chat/completions"
        told: dict[str, Any] = self._ask("POST", address, json=body, timeout=CHAT_TIMEOUT)
        return told

    def delete(self, path: str) -> None:
        """A DELETE."""
        self._ask("DELETE", path)

    def upload(self, path: Path, purpose: str) -> Any:
        """Stream a file to the API; the artifact that it became."""
        query = {"name": path.name, "purpose": purpose}
        return self._ask("POST", "/files", params=query, content=_blocks(path))

    def health(self) -> dict[str, Any]:
        """What works; told with 503 where no job can be taken."""
        with self._reach():
            answer = self._client.get(f"{self.url}{READY}")
        if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
            _check(answer)
        found: dict[str, Any] = answer.json()
        return found

    def text(self, path: str) -> str:
        """A file's content as text."""
        with self._reach():
            answer = self._client.get(path)
        _check(answer)
        return answer.text

    def save(self, path: str, target: Path) -> None:
        """Stream an answer's body to a file."""
        with self._reach(), self._client.stream("GET", path) as answer:
            if answer.is_error:
                answer.read()
            _check(answer)
            with target.open("wb") as file:
                for block in answer.iter_bytes(BLOCK_BYTES):
                    file.write(block)

    def events(self, job_id: str, after: int) -> Iterator[Event]:
        """A job's events after that one, as they come. Ends when the job has ended, or with
        httpx.TransportError when the connection drops."""
        headers = {"Last-Event-ID": str(after)} if after else {}
        timeout = httpx.Timeout(30, connect=5, read=60)
        stream = self._client.stream(
            "GET", f"/jobs/{job_id}/events", headers=headers, timeout=timeout
        )
        with stream as answer:
            if answer.is_error:
                answer.read()
            _check(answer)
            yield from _parse(answer.iter_lines())

    def _ask(self, method: str, path: str, **request: Any) -> Any:
        with self._reach():
            answer = self._client.request(method, path, **request)
        _check(answer)
        return answer.json() if answer.content else None

    @contextmanager
    def _reach(self) -> Iterator[None]:
        try:
            yield
        except httpx.TransportError as error:
            raise unreachable(self.url, str(error) or type(error).__name__) from error


def _given(query: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in query.items() if value is not None}


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            yield block


def _check(answer: httpx.Response) -> None:
    if not answer.is_error:
        return
    try:
        document = answer.json()
    except ValueError:
        document = None
    if not isinstance(document, dict):
        words = f"{answer.url} answered {answer.status_code} without a problem document"
        raise unreachable(str(answer.url), f"{words}; is it really Retort's API?")
    told = document.get("error")
    if isinstance(told, dict):  # As OpenAI's face says it.
        document = {"title": "It was refused", "detail": told.get("message")}
    raise refused({"status": answer.status_code} | document)


def _parse(lines: Iterator[str]) -> Iterator[Event]:
    """Server-sent events (the WHATWG's event stream format) from their lines."""
    fields: dict[str, str] = {}
    for line in lines:
        if not line:
            if "data" in fields and fields.get("id", "").isdigit():
                view = json.loads(fields["data"])
                yield Event(int(fields["id"]), fields.get("event", "message"), view)
            fields = {}
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        fields[name] = f"{fields[name]}\n{value}" if name == "data" and name in fields else value
