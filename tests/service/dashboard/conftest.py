from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from service.app import create_app
from service.site import Site
from tests.service.served import served


@pytest.fixture
async def browser(site: Site) -> AsyncIterator[httpx.AsyncClient]:
    """A client that asks for pages and keeps cookies."""
    app = create_app(site.settings)
    app.state.site.sessions.engine.dispose()
    app.state.site = site
    headers = {"Accept": "text/html", "Origin": "http://localhost"}
    transport = httpx.ASGITransport(app, raise_app_exceptions=True)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://localhost", headers=headers
    ) as client:
        yield client


@pytest.fixture
def url(site: Site) -> Iterator[str]:
    """An API's, for a real browser."""
    with served(site) as listening:
        yield listening
