import dataclasses
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import cast

import httpx
import pytest

from service import db
from service.app import create_app
from service.broker import Broker
from service.settings import Settings
from service.site import Site, open_site
from tests.service.fakes import FakeBroker, FakeTeacher
from tests.service.given import add_file
from tests.service.postgres import PrivateCluster


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", min_free_bytes=0)


@pytest.fixture
def broker() -> FakeBroker:
    return FakeBroker()


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with the tables, to copy: migrating takes longer than most tests."""
    path = tmp_path_factory.mktemp("empty") / "retort.db"
    engine = db.make_engine(f"sqlite:///{path}")
    db.upgrade(engine)
    engine.dispose()
    return path


@pytest.fixture
def site(settings: Settings, broker: FakeBroker, empty_database: Path) -> Iterator[Site]:
    opened = open_site(settings)
    shutil.copy(empty_database, settings.data_dir / "retort.db")
    yield dataclasses.replace(opened, broker=cast(Broker, broker))
    opened.sessions.engine.dispose()


@pytest.fixture(scope="session")
def cluster() -> Iterator[PrivateCluster]:
    with PrivateCluster.started() as running:
        yield running


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.servers)])
def any_site(
    request: pytest.FixtureRequest, settings: Settings, broker: FakeBroker
) -> Iterator[Site]:
    """A site on each kind of database."""
    if request.param == "sqlite":
        yield request.getfixturevalue("site")
        return
    cluster: PrivateCluster = request.getfixturevalue("cluster")
    opened = open_site(settings.model_copy(update={"database_url": cluster.new_database()}))
    db.upgrade(opened.sessions.engine)
    yield dataclasses.replace(opened, broker=cast(Broker, broker))
    opened.sessions.engine.dispose()


@pytest.fixture
async def api(site: Site) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(site.settings)
    app.state.site.sessions.engine.dispose()
    app.state.site = site
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client


@pytest.fixture
async def teacher_server() -> AsyncIterator[FakeTeacher]:
    async with FakeTeacher() as server:
        yield server


@pytest.fixture
def seeds(site: Site) -> str:
    """Id of an uploaded seeds file with four questions."""
    return add_file(site, "".join(f'{{"question": "{n}?", "answer": "{n}"}}\n' for n in range(4)))
