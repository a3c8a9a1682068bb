"""Uploaded files: seeds, pools, evaluation sets, datasets to import."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse

from service import artifacts, uploads
from service.multipart import first_file
from service.routes.deps import PROBLEMS, TheSite, documented
from service.routes.examples import UPLOAD
from service.uploads import Purpose
from service.views import ArtifactPage, ArtifactView

router = APIRouter(prefix="/files", tags=["files"], responses=PROBLEMS)


REFUSED = documented({400: "The form can't be read.", 507: "No room on the disk."})


@router.post("", status_code=201, openapi_extra=UPLOAD, responses=REFUSED)
async def upload_file(
    site: TheSite,
    request: Request,
    name: Annotated[str, Query(min_length=1, max_length=200, examples=["seeds.jsonl"])],
    purpose: Purpose = "seeds",
) -> ArtifactView:
    """Upload a file: as the raw body, or as a multipart form's first file. It streams to disk and
    is checked line by line; an unusable one is refused with the line's number and not kept."""
    content_type = request.headers.get("content-type", "")
    stream: AsyncIterator[bytes] = request.stream()
    if content_type.startswith("multipart/form-data"):
        stream = first_file(stream, content_type)
    file = await uploads.receive(site, stream, name, purpose)
    return artifacts.show(site, "file", file.id)


@router.get("")
def list_files(
    site: TheSite,
    name: str | None = None,
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> ArtifactPage:
    """Uploaded files, newest first."""
    return artifacts.listing(site, "file", name=name, before=cursor, limit=limit)


@router.get("/{reference}")
def show_file(site: TheSite, reference: str) -> ArtifactView:
    """An uploaded file's row."""
    return artifacts.show(site, "file", reference)


@router.get("/{reference}/content", response_class=FileResponse)
def download_file(site: TheSite, reference: str) -> FileResponse:
    """An uploaded file's bytes, as they came."""
    artifact, path = artifacts.directory(site, "file", reference)
    return FileResponse(path, filename=artifact.name, media_type="application/octet-stream")


@router.delete("/{reference}", status_code=204)
def delete_file(site: TheSite, reference: str) -> None:
    """Delete an uploaded file that no schedule and no job under way needs."""
    artifacts.delete_file(site, reference)
