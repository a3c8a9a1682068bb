"""A schedule with a real beat and a real worker."""

from datetime import timedelta

import pytest

from service import jobs, timetable
from service.tables import State, now
from service.timetable import ScheduleSpec
from tests.workers.conftest import StubTeacher, register, sums, upload, wait_for
from tests.workers.test_workers import Plant, plant

__all__ = ["plant"]

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]


def test_two_beats_run_a_due_slot_once(plant: Plant, stub: StubTeacher) -> None:
    register(plant.site, stub.url)
    build = {"kind": "cot", "teacher": "stub", "seeds": upload(plant.site, sums(20))}
    wanted = {
        "name": "each-hour",
        "cron": "0 * * * *",
        "missed": "one",
        "job": {"kind": "build", "build": build},
    }
    spec = ScheduleSpec.model_validate(wanted)
    # Made three hours ago, so that a slot is due now without waiting for the hour.
    schedule = timetable.create(plant.site, spec, now() - timedelta(hours=3))
    plant.worker("w")
    plant.beat()
    plant.start("beat-2", ["beat", "--pidfile=", "--loglevel", "INFO", "--schedule", "beat-2.db"])

    def states() -> list[str]:
        with plant.site.sessions.reading() as session:
            return [job.state for job in jobs.listing(session)]

    wait_for(lambda: states() == [State.SUCCEEDED], 120)
    with plant.site.sessions.reading() as session:
        runs = timetable.runs(session, schedule.id)
    assert sorted(run.state for run in runs) == ["skipped", "skipped", "submitted"]
