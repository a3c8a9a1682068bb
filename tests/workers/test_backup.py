"""A running installation is backed up, destroyed and restored, and its job goes on."""

import shutil
import signal
import threading
from pathlib import Path

import pytest

from service import backup
from service.site import Site
from service.tables import State
from tests.workers.conftest import (
    StubTeacher,
    check_each_once,
    dataset_of,
    get_job,
    lost_at_most,
    new_site,
    register,
    run_build,
    submit,
    sums,
    wait_for,
)
from tests.workers.test_child import fake, in_thread, patient, put, told, work
from tests.workers.test_workers import Plant, plant
from workers import child

__all__ = ["patient", "plant"]

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
    run_build(site, job_id)
    assert get_job(site, job_id).state == State.SUCCEEDED
    check_each_once(dataset_of(site, job_id), rows)
    # What was answered before the backup is not asked again.
    assert stub.stats()["requests"] - asked <= rows - answered + lost_at_most(window)
    site.sessions.engine.dispose()


def test_a_running_training_goes_on_from_its_checkpoint(patient: Site, tmp_path: Path) -> None:
    """The trainer is a labelled fake that writes a checkpoint when it is stopped."""
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text("{}")
    train = {"method": "sequence_level", "student": str(base), "dataset": str(base), "name": "s"}
    job_id = put(patient, {"kind": "train", "train": train})
    stops = threading.Event()
    first = in_thread(patient, job_id, "wait", stops)
    stops.set()
    first.join(30)
    (work(patient, job_id) / "out" / "waiting").unlink()
    stops = threading.Event()
    second = in_thread(patient, job_id, "wait", stops)
    assert get_job(patient, job_id).state == State.RUNNING
    backup.backup(patient, tmp_path / "backup.tar.zst")
    stops.set()
    second.join(30)
    shutil.rmtree(patient.settings.data_dir)

    site = new_site(tmp_path / "elsewhere")
    assert backup.restore(site, tmp_path / "backup.tar.zst").unfinished == 1
    child.run(site, job_id, trainer=fake("ok"))
    assert get_job(site, job_id).state == State.SUCCEEDED
    said = [each["detail"] for each in told(site, job_id, "phase")]
    assert [one for one in said if one.startswith("from")][-1] == "from step 3"
    site.sessions.engine.dispose()
