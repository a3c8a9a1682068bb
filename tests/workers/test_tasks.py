"""What beat calls for, and that it is there."""

from collections.abc import Iterator

import pytest

from service.site import Site
from tests.service.test_retention import write
from workers import tasks
from workers.app import app


@pytest.fixture
def called(site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tasks open the installation that the environment names."""
    monkeypatch.setenv("RETORT_DATA_DIR", str(site.settings.data_dir))
    tasks.site.cache_clear()
    yield
    tasks.site().sessions.engine.dispose()
    tasks.site.cache_clear()


def test_beat_calls_only_for_tasks_that_there_are() -> None:
    named = {entry["task"] for entry in app.conf.beat_schedule.values()}
    assert named == {tasks.tick.name, tasks.sweep.name}
    assert all(app.conf.task_routes[name]["queue"] == "control" for name in named)


def test_the_hourly_sweep_deletes(site: Site, called: None) -> None:
    half = write(site.store.root / "incoming" / "file-half")
    tasks.sweep()
    assert not half.exists()
