"""/v1/files: requests of batches, chats to train on, what batches were answered."""

from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse
from sqlalchemy import select

from service import artifacts, uploads
from service.multipart import Form, read_form
from service.openai.errors import ERRORS
from service.openai.objects import Limit, Object, listed, seconds
from service.problems import Fault, bad_input
from service.routes.deps import TheSite
from service.tables import Artifact
from service.uploads import Purpose

router = APIRouter(prefix="/files", tags=["files"], responses=ERRORS)

PURPOSES: dict[str, Purpose] = {"batch": "batch", "fine-tune": "fine-tune"}
SUMMARY: Any = Artifact.summary
"""As a JSON column, whose comparisons SQLAlchemy's types don't know."""
FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "purpose": {"type": "string", "enum": list(PURPOSES)},
                    },
                    "required": ["file", "purpose"],
                }
            }
        },
    }
}


@router.post("", openapi_extra=FORM)
async def upload_file(site: TheSite, request: Request) -> Object:
    """Upload a file. It streams to disk; whoever reads it checks it."""
    form = read_form(request.stream(), request.headers.get("content-type", ""))
    file = await uploads.receive_form(site, form, lambda: _purpose(form))
    return file_object(file)


@router.get("")
def list_files(
    site: TheSite,
    purpose: str | None = None,
    after: str | None = None,
    limit: Limit = 100,
    order: Literal["asc", "desc"] = "desc",
) -> Object:
    """Files, newest first unless asked otherwise."""
    query = select(Artifact).where(Artifact.kind == "file")
    if purpose is not None:
        query = query.where(SUMMARY["purpose"].as_string() == purpose)
    if after is not None:
        query = query.where(Artifact.id < after if order == "desc" else Artifact.id > after)
    ordered = query.order_by(Artifact.id.desc() if order == "desc" else Artifact.id)
    with site.sessions.reading() as session:
        found = [file_object(file) for file in session.scalars(ordered.limit(limit + 1))]
    return listed(found, limit)


@router.get("/{file_id}")
def show_file(site: TheSite, file_id: str) -> Object:
    """A file's facts."""
    return file_object(artifacts.find(site, "file", file_id))


@router.get("/{file_id}/content", response_class=FileResponse)
def download_file(site: TheSite, file_id: str) -> FileResponse:
    """A file's bytes."""
    file, path = artifacts.directory(site, "file", file_id)
    return FileResponse(path, filename=file.name, media_type="application/octet-stream")


@router.delete("/{file_id}")
def delete_file(site: TheSite, file_id: str) -> Object:
    """Delete a file that no schedule and no job under way needs."""
    file = artifacts.delete_file(site, file_id)
    return {"id": file.id, "object": "file", "deleted": True}


def file_object(file: Artifact) -> Object:
    """A file in OpenAI's form."""
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.bytes,
        "created_at": seconds(file.created_at),
        "filename": file.name,
        "purpose": file.summary.get("purpose", "seeds"),
        "status": "processed",
    }


def _purpose(form: Form) -> Purpose:
    given = form.fields.get("purpose", "")
    if given not in PURPOSES:
        message = f"is {given!r}; files are taken for: {', '.join(PURPOSES)}"
        raise bad_input([Fault("purpose", message)], "The file can't be used")
    return PURPOSES[given]
