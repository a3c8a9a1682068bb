import asyncio
from datetime import timedelta

import httpx
import pytest
from sqlalchemy import func, select, update

from service import jobs, once
from service.once import Claim
from service.problems import Problem
from service.site import Site
from service.tables import Reply, now

SERVE = {"kind": "serve", "model": "org/model", "name": "t"}
KEY = {"Idempotency-Key": "k"}


def count(site: Site) -> int:
    with site.sessions.reading() as session:
        return len(jobs.listing(session))


async def test_a_repeated_body_replays_the_answer(api: httpx.AsyncClient, site: Site) -> None:
    first = await api.post("/api/v1/jobs", json=SERVE, headers=KEY)
    await api.post(f"/api/v1/jobs/{first.json()['id']}/cancel")
    # Written otherwise, the same; answered as it was then, though the job has ended since.
    text = '{"name": "t",  "model": "org/model", "kind": "serve"}'
    again = await api.post(
        "/api/v1/jobs", content=text, headers=KEY | {"Content-Type": "application/json"}
    )
    assert (again.status_code, again.content) == (202, first.content)
    assert again.headers["location"] == first.headers["location"]
    assert count(site) == 1


async def test_another_body_or_route_is_refused(api: httpx.AsyncClient, site: Site) -> None:
    await api.post("/api/v1/jobs", json=SERVE, headers=KEY)
    other = await api.post("/api/v1/jobs", json=SERVE | {"name": "u"}, headers=KEY)
    assert (other.status_code, count(site)) == (422, 1)
    assert other.json()["type"].endswith("idempotency-key-reused")
    elsewhere = await api.post("/api/v1/schedules", json=SERVE, headers=KEY)
    assert elsewhere.json()["type"].endswith("idempotency-key-reused")


async def test_a_refused_request_leaves_its_key_free(api: httpx.AsyncClient, site: Site) -> None:
    refused = await api.post("/api/v1/jobs", json={"kind": "bild"}, headers=KEY)
    assert refused.status_code == 422
    assert (await api.post("/api/v1/jobs", json=SERVE, headers=KEY)).status_code == 202


async def test_keys_cover_schedules_and_runs(api: httpx.AsyncClient, site: Site) -> None:
    wanted = {"name": "s", "cron": "0 * * * *", "overlap": "queue", "job": SERVE}
    first = await api.post("/api/v1/schedules", json=wanted, headers=KEY)
    assert (await api.post("/api/v1/schedules", json=wanted, headers=KEY)).json() == first.json()
    headers = {"Idempotency-Key": "run-1"}
    runs = [await api.post("/api/v1/schedules/s/run", headers=headers) for _ in range(2)]
    assert runs[0].json() == runs[1].json()
    assert count(site) == 1


def test_one_that_is_under_way_is_told_so_until_it_is_given_up(any_site: Site) -> None:
    claim = Claim("k" * 64, "r" * 64)
    assert once.take(any_site, claim, now()) is None
    with pytest.raises(Problem) as early:
        once.take(any_site, claim, now())
    assert early.value.status == 409
    later = now() + once.ABANDONED + timedelta(seconds=1)
    assert once.take(any_site, claim, later) is None
    with pytest.raises(Problem):
        once.take(any_site, claim, later)


async def test_requests_at_once_make_one_job(api: httpx.AsyncClient, site: Site) -> None:
    asked = [api.post("/api/v1/jobs", json=SERVE, headers=KEY) for _ in range(8)]
    answers = [answer.status_code for answer in await asyncio.gather(*asked)]
    assert set(answers) <= {202, 409}
    assert (202 in answers, count(site)) == (True, 1)


def test_answers_are_kept_for_a_week(site: Site) -> None:
    once.take(site, Claim("k" * 64, "r" * 64), now())
    once.forget_old(site, now() + timedelta(days=6))
    with site.sessions.writing.begin() as session:
        assert session.scalar(select(func.count()).select_from(Reply)) == 1
        session.execute(update(Reply).values(at=now() - timedelta(days=8)))
    once.forget_old(site, now())
    with site.sessions.reading() as session:
        assert session.scalar(select(func.count()).select_from(Reply)) == 0
