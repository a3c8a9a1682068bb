"""The installation itself, for commands that don't go through the API."""

from collections.abc import Iterator
from contextlib import contextmanager

from service import db
from service.cli.failure import refused
from service.cli.options import load_settings
from service.problems import Problem
from service.site import Site, open_site


@contextmanager
def installation() -> Iterator[Site]:
    """The environment's, its tables up to date. Problems become the command's failure."""
    site = open_site(load_settings())
    try:
        db.upgrade(site.sessions.engine)
        yield site
    except Problem as problem:
        raise refused(problem.document("retort")) from problem
    finally:
        site.sessions.engine.dispose()
