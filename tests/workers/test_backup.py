"""A running installation is backed up, destroyed and restored, and its job goes on."""

import shutil
import signal
from pathlib import Path

import pytest

from service import backup
from service.tables import State
from tests.workers.conftest import (
    LEASE_S,
    StubTeacher,
    check_each_once,
    dataset_of,
    get_job,
    lost_at_most,
    new_site,
    register,
    submit,
    sums,
    wait_for,
)
from tests.workers.test_workers import Plant, plant
from workers import build
from workers.watch import Watch

__all__ = ["plant"]

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]


def test_a_half_done_job_goes_on_from_a_backup(
    plant: Plant, stub: StubTeacher, tmp_path: Path
) -> None:
    rows, window, answered = 400, 8, 150
    register(plant.site, stub.url)
    stub.faults(delay_s=0.05)
    worker = plant.worker("w")
    job_id = submit(plant.site, sums(rows), max_in_flight=window)
    wait_for(lambda: stub.stats()["answered"] >= answered)
    backup.backup(plant.site, tmp_path / "backup.tar.zst")
    assert get_job(plant.site, job_id).state == State.RUNNING
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    shutil.rmtree(plant.site.settings.data_dir)
    asked = stub.stats()["requests"]

    site = new_site(tmp_path / "elsewhere")
    restored = backup.restore(site, tmp_path / "backup.tar.zst")
    assert (restored.unfinished, restored.missing) == (1, ())
    build.run(site, job_id, Watch(LEASE_S))
    assert get_job(site, job_id).state == State.SUCCEEDED
    check_each_once(dataset_of(site, job_id), rows)
    # What was answered before the backup is not asked again.
    assert stub.stats()["requests"] - asked <= rows - answered + lost_at_most(window)
    site.sessions.engine.dispose()
