"""What datasets, models and reports have in common: list, show, download, one file."""

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import FileResponse, StreamingResponse

from service import ancestry, artifacts
from service.ancestry import Relative
from service.archive import zipped
from service.routes.deps import PROBLEMS, TheSite
from service.store import ArtifactKind
from service.views import ArtifactPage, ArtifactView


def artifact_router(kind: ArtifactKind) -> APIRouter:
    """Routes under /datasets, /models or /reports. A reference is an id, `name` or
    `name@version`."""
    router = APIRouter(prefix=f"/{kind}s", tags=[f"{kind}s"], responses=PROBLEMS)

    @router.get("", summary=f"List {kind}s", operation_id=f"list_{kind}s")
    def list_artifacts(
        site: TheSite,
        name: str | None = None,
        cursor: str | None = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
    ) -> ArtifactPage:
        return artifacts.listing(site, kind, name=name, before=cursor, limit=limit)

    @router.get("/{reference}", summary=f"Show a {kind}", operation_id=f"show_{kind}")
    def show_artifact(site: TheSite, reference: str) -> ArtifactView:
        return artifacts.show(site, kind, reference)

    @router.get(
        "/{reference}/lineage",
        summary=f"What a {kind} was made from, and what was made from it",
        operation_id=f"show_{kind}_lineage",
    )
    def show_lineage(site: TheSite, reference: str) -> list[Relative]:
        found = artifacts.find(site, kind, reference)
        with site.sessions.reading() as session:
            return ancestry.family(session, found.id)

    @router.get(
        "/{reference}/download",
        summary=f"Download a {kind} as a zip file",
        operation_id=f"download_{kind}",
        response_class=StreamingResponse,
    )
    def download_artifact(site: TheSite, reference: str) -> StreamingResponse:
        artifact, path = artifacts.directory(site, kind, reference)
        headers = {"Content-Disposition": f'attachment; filename="{artifact.id}.zip"'}
        return StreamingResponse(zipped(path), media_type="application/zip", headers=headers)

    @router.get(
        "/{reference}/files/{path:path}",
        summary=f"Download one file of a {kind}",
        operation_id=f"download_{kind}_file",
        response_class=FileResponse,
    )
    def download_file(site: TheSite, reference: str, path: str) -> FileResponse:
        file = artifacts.file_inside(site, kind, reference, path)
        return FileResponse(file, filename=file.name)

    return router
