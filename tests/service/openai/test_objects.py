"""OpenAI's objects as jobs become them, without a worker: each state is set in the database."""

from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest

from service import jobs
from service.site import Site
from service.tables import Job, State, now
from tests.service.given import add_file, spec


def change(site: Site, job_id: str, **values: Any) -> None:
    with site.sessions.writing.begin() as session:
        job = session.get_one(Job, job_id)
        for name, value in values.items():
            setattr(job, name, value)


@pytest.fixture
def job_id(site: Site) -> str:
    """A batch of an hour that runs."""
    batch = jobs.submit(site, spec(kind="batch", input=add_file(site, "{}\n"), window_s=3600))
    change(site, batch.id, state=State.RUNNING, started_at=now())
    return batch.id


async def seen(api: httpx.AsyncClient, job_id: str) -> dict[str, Any]:
    answer = await api.get(f"/v1/batches/{job_id.replace('job-', 'batch_')}")
    assert answer.status_code == 200
    listed = (await api.get("/v1/batches")).json()["data"]
    assert listed == [answer.json()]
    return dict(answer.json())


async def test_a_batch_that_is_to_stop_says_since_when(
    site: Site, api: httpx.AsyncClient, job_id: str
) -> None:
    assert (await seen(api, job_id))["cancelling_at"] is None
    asked = await api.post(f"/v1/batches/{job_id.replace('job-', 'batch_')}/cancel")
    assert asked.json()["status"] == "cancelling"
    stopping = await seen(api, job_id)
    assert stopping["cancelling_at"] == asked.json()["cancelling_at"] is not None
    change(site, job_id, state=State.CANCELLED, finished_at=now() + timedelta(seconds=90))
    ended = await seen(api, job_id)
    assert ended["status"] == "cancelled"
    assert ended["cancelling_at"] == stopping["cancelling_at"]
    assert ended["cancelled_at"] - ended["cancelling_at"] >= 89


async def test_a_batch_that_never_ran_is_cancelled_at_once(
    site: Site, api: httpx.AsyncClient
) -> None:
    batch = jobs.submit(site, spec(kind="batch", input=add_file(site, "{}\n")))
    jobs.cancel(site, batch.id)
    ended = await seen(api, batch.id)
    assert ended["cancelling_at"] == ended["cancelled_at"] is not None


async def test_a_batch_finalizes(site: Site, api: httpx.AsyncClient, job_id: str) -> None:
    progress = {"in_progress_at": 100, "finalizing_at": 200, "total": 3, "completed": 2}
    change(site, job_id, progress=progress | {"phase": "finalizing", "failed": 1})
    found = await seen(api, job_id)
    assert found["status"] == "finalizing"
    assert (found["in_progress_at"], found["finalizing_at"]) == (100, 200)
    assert found["request_counts"] == {"total": 3, "completed": 2, "failed": 1}
    assert [found[f"{end}_at"] for end in ("completed", "failed", "expired", "cancelled")] == (
        [None] * 4
    )


async def test_a_batch_expires_with_what_it_has(
    site: Site, api: httpx.AsyncClient, job_id: str
) -> None:
    result = {"output_file": "file-o", "error_file": "file-e", "completed": 1, "failed": 2}
    ended_at: datetime = now()
    change(
        site,
        job_id,
        state=State.SUCCEEDED,
        reason="expired",
        result=result | {"total": 3},
        finished_at=ended_at,
    )
    found = await seen(api, job_id)
    assert (found["status"], found["expired_at"]) == ("expired", int(ended_at.timestamp()))
    assert (found["completed_at"], found["errors"]) == (None, None)
    assert (found["output_file_id"], found["error_file_id"]) == ("file-o", "file-e")
    assert found["expires_at"] == found["created_at"] + 3600


@pytest.mark.parametrize("state", [State.SUCCEEDED, State.FAILED, State.CANCELLED])
async def test_a_fine_tuning_job_that_has_ended_says_when(
    site: Site, api: httpx.AsyncClient, state: State
) -> None:
    with site.sessions.writing.begin() as session:
        train = {"dataset": "dataset-x", "method": "sequence_level", "student": "s"}
        chosen = {"epochs": 1, "batch_size": 1, "learning_rate": 1e-4, "seed": 0}
        told = {"kind": "train", "train": train | {"optimization": chosen}}
        session.add(Job(id="job-1", kind="train", name="x", state="running", spec=told))
    assert (await api.get("/v1/fine_tuning/jobs/ftjob-1")).json()["finished_at"] is None
    change(site, "job-1", state=state, finished_at=now())
    ended = (await api.get("/v1/fine_tuning/jobs/ftjob-1")).json()
    assert ended["finished_at"] is not None
    assert (ended["error"] is not None) is (state == State.FAILED)
