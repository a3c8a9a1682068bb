"""An API that notes which of its routes are asked, and answers each by the form that it documents.
Nothing is behind it."""

import io
import re
import zipfile
from collections.abc import Iterator
from typing import Any

import httpx
from fastapi.routing import APIRoute
from pydantic import TypeAdapter

from service.addresses import API, OPENAI
from service.app import ROUTERS
from service.openai import chat

Route = tuple[str, str]
"""Method and path, its parameters named."""
CHAT = {"choices": [{"message": {"role": "assistant", "content": "5"}}]}


def native_routes() -> Iterator[APIRoute]:
    """All of `/api/v1`, their paths as they stand there."""
    for router in ROUTERS:
        yield from (route for route in router.routes if isinstance(route, APIRoute))


class Recorder:
    """The other end of a client's transport."""

    def __init__(self) -> None:
        self.asked: set[Route] = set()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        """Answer, and note the first route that takes the request, as the app's router does."""
        path, method = request.url.path, request.method
        if (method, path) == ("POST", f"{OPENAI}/chat/completions"):
            self.asked.add((method, chat.router.routes[0].path))  # type: ignore[attr-defined]
            return httpx.Response(200, json=CHAT)
        route = next(
            route
            for route in native_routes()
            if method in route.methods and route.path_regex.fullmatch(path.removeprefix(API))
        )
        self.asked.add((method, route.path))
        if route.path.endswith("/download"):
            return httpx.Response(200, content=_empty_zip())
        if route.path.endswith("/events"):
            return httpx.Response(200, headers={"Content-Type": "text/event-stream"})
        if route.status_code == 204:
            return httpx.Response(204)
        if re.search(r"/(content|log|path:path\})$", route.path):
            return httpx.Response(200, text="text")
        answer = made_up(TypeAdapter(route.response_model).json_schema(mode="serialization"))
        if isinstance(answer, dict) and "state" in answer:
            # What says nothing of itself goes on for ever: a follower waits for the end.
            answer["state"] = "paused" if "job-paused" in path else "succeeded"
        return httpx.Response(route.status_code or 200, json=answer)


def made_up(schema: dict[str, Any]) -> Any:
    """A value of a JSON schema: the fullest of the alternatives, one entry in each list."""
    defined = schema.get("$defs", {})

    def value(part: dict[str, Any]) -> Any:
        if "$ref" in part:
            return value(defined[part["$ref"].rpartition("/")[2]])
        if "anyOf" in part:
            return None if {"type": "null"} in part["anyOf"] else value(part["anyOf"][0])
        match part.get("type"):
            case "object" if "properties" in part:
                return {name: value(each) for name, each in part["properties"].items()}
            case "object":  # Free: a spec has a kind.
                return {"kind": "serve"}
            case "array":
                return [value(part["items"])] if part.get("items") else []
            case "string":
                times = part.get("format") == "date-time"
                return "2026-11-24T20:30:00Z" if times else part.get("enum", ["job-1"])[0]
            case "integer" | "number":
                return 1
            case "boolean":
                return True
        return {}

    return value(schema)


def _empty_zip() -> bytes:
    written = io.BytesIO()
    zipfile.ZipFile(written, "w").close()
    return written.getvalue()
