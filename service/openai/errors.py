"""Errors as OpenAI's clients expect them: `{"error": {"message", "type", "param", "code"}}`."""

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DataError, OperationalError
from starlette.exceptions import HTTPException

from service.errors import database_away, faults, not_stored, storage_away
from service.problems import Problem
from service.shared import StorageError

INVALID = "invalid_request_error"
TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}

_ERROR = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
            "required": ["message", "type", "param", "code"],
        }
    },
    "required": ["error"],
}
ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {
        "description": "Something in the request can't work; `param` says where.",
        "content": {"application/json": {"schema": _ERROR}},
    },
    "5XX": {
        "description": "The teacher, database or bucket is away, or an error in Retort itself.",
        "content": {"application/json": {"schema": _ERROR}},
    },
}


def install(app: FastAPI) -> None:
    """Answer every error of this app in OpenAI's form."""
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(OperationalError, _database)
    app.add_exception_handler(DataError, _data)
    app.add_exception_handler(StorageError, _storage)
    app.add_exception_handler(Exception, _bug)


def answer(problem: Problem) -> JSONResponse:
    """A problem in OpenAI's form: what is wrong in the request is 400 there."""
    status = 400 if problem.status == 422 else problem.status
    param = problem.faults[0].location if problem.faults else None
    kind = "server_error" if status >= 500 else TYPES.get(status, INVALID)
    code = problem.type.replace("-", "_")
    error = {"message": problem.detail, "type": kind, "param": param, "code": code}
    return JSONResponse({"error": error}, status, problem.headers)


async def _problem(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Problem)
    return answer(error)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    found = faults(error.errors(), error.body)
    detail = "; ".join(f"{fault.location}: {fault.message}" for fault in found[:5])
    return answer(Problem(422, "invalid-request", "The request isn't valid", detail, found))


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    said = answer(Problem(error.status_code, "http", str(error.detail), str(error.detail)))
    said.headers.update(error.headers or {})
    return said


async def _database(request: Request, error: Exception) -> JSONResponse:
    return answer(database_away(error))


async def _data(request: Request, error: Exception) -> JSONResponse:
    return answer(not_stored(error))


async def _storage(request: Request, error: Exception) -> JSONResponse:
    return answer(storage_away(error))


async def _bug(request: Request, error: Exception) -> JSONResponse:
    detail = f"{type(error).__name__}: an error in Retort itself. The API's log has its trace."
    return answer(Problem(500, "internal", "Internal error", detail))
