"""Checks of a spec against what is really there, before anything is spent."""

from sqlalchemy.orm import Session

from service.site import Site
from service.spec import JobSpec


def check(session: Session, site: Site, spec: JobSpec) -> JobSpec:
    """The spec with its references resolved to ids and absolute paths. Raises problems."""
    return spec
