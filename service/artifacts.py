"""Looking at what was published."""

from pathlib import Path

from sqlalchemy import String, cast, delete, select

from service.pages import cut
from service.problems import Problem, conflict, not_found
from service.shared import Wanted
from service.site import Site
from service.store import ArtifactKind, everything
from service.tables import FINISHED, Artifact, Job, Schedule
from service.views import ArtifactPage, ArtifactView, artifact_view


def listing(
    site: Site, kind: ArtifactKind, *, name: str | None, before: str | None, limit: int
) -> ArtifactPage:
    """Artifacts of a kind, newest first; `before` is the last id of the page before this one."""
    query = select(Artifact).where(Artifact.kind == kind).order_by(Artifact.id.desc())
    if name is not None:
        query = query.where(Artifact.name == name)
    if before is not None:
        query = query.where(Artifact.id < before)
    with site.sessions.reading() as session:
        found = list(session.scalars(query.limit(limit + 1)))
    page, more = cut(found, limit, lambda artifact: artifact.id)
    return ArtifactPage(artifacts=[_view(site, artifact) for artifact in page], next=more)


def show(site: Site, kind: ArtifactKind, reference: str) -> ArtifactView:
    """One artifact, by id, `name` or `name@version`. Raises a 404 problem."""
    return _view(site, find(site, kind, reference))


def find(site: Site, kind: ArtifactKind, reference: str) -> Artifact:
    """An artifact, wherever its files are. Raises a 404 problem."""
    with site.sessions.reading() as session:
        return site.store.resolve(session, reference, kind)


def directory(
    site: Site, kind: ArtifactKind, reference: str, wanted: Wanted = everything
) -> tuple[Artifact, Path]:
    """An artifact and where it lies, with the files that are `wanted`. Raises a 404 problem; also
    if its files are gone."""
    artifact = find(site, kind, reference)
    path = site.store.path(artifact, wanted)
    if not path.exists():
        detail = f"{artifact.id} is no longer at {site.store.location(artifact)}."
        raise Problem(404, "files-gone", "Its files are gone", detail)
    return artifact, path


def remove(site: Site, artifact: Artifact) -> None:
    """Delete an artifact: first its row, so that nobody finds it half gone. Whoever calls makes
    sure that nothing needs it."""
    with site.sessions.writing.begin() as session:
        session.execute(delete(Artifact).where(Artifact.id == artifact.id))
    site.store.shared.remove(site.store.folder(artifact))


def delete_file(site: Site, reference: str) -> Artifact:
    """Delete an uploaded file. Raises a 404 problem, or 409 if a schedule or a job under way needs
    it."""
    file = find(site, "file", reference)
    named = cast(Job.spec, String).contains(file.id, autoescape=True)
    repeated = cast(Schedule.spec, String).contains(file.id, autoescape=True)
    with site.sessions.reading() as session:
        job = session.scalars(select(Job.id).where(Job.state.not_in(FINISHED), named)).first()
        user = job or session.scalars(select(Schedule.name).where(repeated)).first()
    if user is not None:
        what = "cancel that first" if job else "delete that schedule first"
        raise conflict("The file is in use", f"{user} needs it; {what}.")
    remove(site, file)
    return file


def file_inside(site: Site, kind: ArtifactKind, reference: str, inside: str) -> Path:
    """A file of an artifact. Raises a 404 problem, also for a path that leads out of it."""
    _, root = directory(site, kind, reference)
    wanted = (root / inside).resolve()
    if not wanted.is_relative_to(root.resolve()) or not wanted.is_file():
        files = [path.relative_to(root).as_posix() for path in sorted(root.rglob("*"))]
        raise not_found("file", inside, files)
    return wanted


def _view(site: Site, artifact: Artifact) -> ArtifactView:
    return artifact_view(artifact, site.store.location(artifact))
