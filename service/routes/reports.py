"""Reports: list, show, download, read in a browser."""

from fastapi.responses import FileResponse

from service import artifacts
from service.routes.artifacts import artifact_router
from service.routes.deps import TheSite

router = artifact_router("report")

SANDBOX = {
    # A report quotes prompts and completions: nothing in it may run or fetch.
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'"
    ),
    "X-Content-Type-Options": "nosniff",
}


@router.get("/{reference}/{path:path}", response_class=FileResponse)
def read_report(site: TheSite, reference: str, path: str) -> FileResponse:
    """A report's page, such as `report.html`, or a picture on it, shown by the browser."""
    return FileResponse(artifacts.file_inside(site, "report", reference, path), headers=SANDBOX)
