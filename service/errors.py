"""Turns whatever a request raises into RFC 9457 problem documents."""

import logging
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DataError, OperationalError
from starlette.exceptions import HTTPException

from prompts.fields import FieldError
from service.problems import MEDIA_TYPE, Fault, Problem
from service.shared import StorageError

log = logging.getLogger(__name__)

DISCRIMINATORS = ("kind", "method")
NO_NUL = "No text may hold a NUL character, and no number be larger than its column."
CODES = {404: "not-found", 405: "method-not-allowed"}
"""Of what the framework refuses by itself."""


def install(app: FastAPI) -> None:
    """Answer every error of this app as a problem document."""
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(OperationalError, _database)
    app.add_exception_handler(DataError, _data)
    app.add_exception_handler(StorageError, _storage)
    app.add_exception_handler(Exception, _bug)


def database_away(error: Exception) -> Problem:
    """503: the database can't be used just now."""
    log.error("database: %s", error)
    detail = "The database is away or busy. Try again in a moment."
    return Problem(503, "database", "The database can't be used", detail)


def not_stored(error: Exception) -> Problem:
    """422: a value that no check refused and the database does, such as a NUL on PostgreSQL."""
    log.warning("database: %s", error)
    return Problem(422, "bad-input", "The database can't store that", NO_NUL)


def storage_away(error: Exception) -> Problem:
    """503: the artifact root can't be used just now, or as it is set up."""
    log.error("artifacts: %s", error)
    return Problem(503, "storage", "The artifacts can't be reached", f"{error}.")


def faults(errors: Sequence[Any], body: Any) -> tuple[Fault, ...]:
    """Pydantic's errors as faults, at the places that a user wrote."""
    return tuple(_fault(error, body) for error in errors)


def _fault(error: Any, body: Any) -> Fault:
    cause = error.get("ctx", {}).get("error")
    if isinstance(cause, FieldError):
        return Fault(location((*error["loc"], *cause.field.split(".")), body), cause.problem)
    return Fault(location(error["loc"], body), _message(error["type"], error["msg"]))


def location(path: Sequence[str | int], body: Any) -> str:
    """Dotted path of an error in the request. The tags that pydantic puts between, the kind of each
    union's member, are left out: the user never wrote them as a level."""
    if not path or path[0] != "body":
        return ".".join(map(str, path)) or "body"
    found: list[str] = []
    here, tagged = body, False
    for step in path[1:]:
        if isinstance(here, dict) and not tagged and step in _tags(here):
            tagged = True
            continue
        found.append(str(step))
        here, tagged = _inside(here, step), False
    return ".".join(found) or "body"


def _tags(value: dict[str, Any]) -> list[Any]:
    return [value[name] for name in DISCRIMINATORS if name in value]


def _inside(value: Any, step: str | int) -> Any:
    if isinstance(value, dict):
        return value.get(step)
    if isinstance(value, list) and isinstance(step, int) and step < len(value):
        return value[step]
    return None


def _message(kind: str, message: str) -> str:
    if kind == "extra_forbidden":
        return "unknown field; see the field names in the API's documentation at /docs"
    return message.removeprefix("Value error, ")


def _answer(request: Request, problem: Problem) -> JSONResponse:
    document = problem.document(request.url.path)
    return JSONResponse(document, problem.status, problem.headers, MEDIA_TYPE)


async def _problem(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Problem)
    return _answer(request, error)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    found = faults(error.errors(), error.body)
    detail = "; ".join(f"{fault.location}: {fault.message}" for fault in found[:5])
    return _answer(
        request, Problem(422, "invalid-request", "The request isn't valid", detail, found)
    )


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    code = CODES.get(error.status_code, "http")
    problem = Problem(error.status_code, code, str(error.detail), str(error.detail))
    answer = _answer(request, problem)
    answer.headers.update(error.headers or {})
    return answer


async def _database(request: Request, error: Exception) -> JSONResponse:
    return _answer(request, database_away(error))


async def _data(request: Request, error: Exception) -> JSONResponse:
    return _answer(request, not_stored(error))


async def _storage(request: Request, error: Exception) -> JSONResponse:
    return _answer(request, storage_away(error))


async def _bug(request: Request, error: Exception) -> JSONResponse:
    # Starlette logs the stack; whoever asked must not see it.
    detail = f"{type(error).__name__}: an error in Retort itself. The API's log has its trace."
    return _answer(request, Problem(500, "internal", "Internal error", detail))
