"""Checks of a spec against what is really there, before anything is spent."""

from service.site import Site
from service.spec import JobSpec


def check(site: Site, spec: JobSpec) -> JobSpec:
    """The spec with its references resolved to ids and absolute paths. Raises problems."""
    return spec
