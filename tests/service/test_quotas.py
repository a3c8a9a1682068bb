"""Limits of keys: what is refused, with which status, and that processes count together."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from service import jobs, keys, quotas, timetable
from service.keys import NewKey
from service.problems import Problem
from service.quotas import Limits
from service.site import Site
from service.tables import Chunk, Job, Schedule, State, now
from service.timetable import ScheduleSpec
from tests.service.given import add_teacher, build, spec
from tests.service.test_turns import register
from tests.workers.conftest import StubTeacher, stub

__all__ = ["stub"]

JOBS, NOON = "/api/v1/jobs", datetime(2026, 11, 24, 12, tzinfo=UTC)
SAID = [{"role": "user", "content": "What is 2 plus 3?"}]


def made(site: Site, **limits: int) -> tuple[str, dict[str, str]]:
    """A key's id and the header that shows it."""
    wanted = NewKey(name="k", scopes=("admin",), limits=Limits(**limits))
    key, token = keys.create(site, wanted)
    return key.id, {"Authorization": f"Bearer {token}"}


@pytest.fixture
def known(site: Site, stub: StubTeacher) -> StubTeacher:
    """A teacher without a limit of its own."""
    register(site, stub.url, None)
    return stub


async def test_requests_beyond_a_minutes_are_refused(api: httpx.AsyncClient, site: Site) -> None:
    _, shown = made(site, requests_per_minute=3)
    for path in (JOBS, "/api/v1/nowhere", "/v1/models"):
        assert (await api.get(path, headers=shown)).status_code != 429
    refused = await api.get(JOBS, headers=shown)
    assert (refused.status_code, refused.json()["type"]) == (429, "urn:retort:problem:rate-limited")
    assert 1 <= int(refused.headers["Retry-After"]) <= 20
    face = await api.get("/v1/models", headers=shown)
    assert (face.status_code, face.json()["error"]["code"]) == (429, "rate_limited")
    assert face.json()["error"]["type"] == "rate_limit_error"
    assert "Retry-After" in face.headers
    assert (await api.get("/healthz", headers=shown)).status_code == 200
    _, other = made(site)
    assert (await api.get(JOBS, headers=other)).status_code == 200


def test_requests_come_back_evenly(site: Site) -> None:
    key_id, _ = made(site, requests_per_minute=60)
    for _ in range(60):
        quotas.take_request(site, key_id, NOON)
    with pytest.raises(Problem) as refused:
        quotas.take_request(site, key_id, NOON)
    assert refused.value.retry_after_s == 1
    quotas.take_request(site, key_id, NOON + timedelta(seconds=1))
    with pytest.raises(Problem):
        quotas.take_request(site, key_id, NOON + timedelta(seconds=1.5))


def test_processes_count_requests_and_jobs_together(any_site: Site) -> None:
    key_id, _ = made(any_site, requests_per_minute=5, jobs_at_once=3)
    add_teacher(any_site)
    wanted = spec(kind="serve", model="org/model", name="s")

    def ask(number: int) -> bool:
        return _passes(lambda: quotas.take_request(any_site, key_id, NOON))

    def submit(number: int) -> bool:
        return _passes(lambda: jobs.submit(any_site, wanted, by=key_id))

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(ask, range(16))) == 5
        assert sum(threads.map(submit, range(8))) == 3


def _passes(act: Any) -> bool:
    try:
        act()
    except Problem as problem:
        return problem.status != 429
    return True


@pytest.mark.slow
async def test_a_key_has_so_many_unfinished_jobs(
    api: httpx.AsyncClient, site: Site, seeds: str
) -> None:
    add_teacher(site)
    key_id, shown = made(site, jobs_at_once=1)
    recipe = {"kind": "recipe", "build": build(seeds)}
    first = (await api.post(JOBS, json=recipe, headers=shown)).json()
    # A part of it counts with it.
    jobs.submit(site, spec(kind="build", build=build(seeds)), parent_id=first["id"], by=key_id)
    for path, body in (
        (JOBS, recipe),
        (f"{JOBS}/{first['id']}/clone", {}),
    ):
        refused = await api.post(path, json=body, headers=shown)
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "30")
        assert refused.json()["type"] == "urn:retort:problem:too-many-jobs"
    file = {"file": ("b.jsonl", b"{}")}
    asked = {"input_file_id": "f", "endpoint": "/v1/chat/completions", "completion_window": "1h"}
    up = await api.post("/v1/files", files=file, data={"purpose": "batch"}, headers=shown)
    asked["input_file_id"] = up.json()["id"]
    refused = await api.post("/v1/batches", json=asked, headers=shown)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "too_many_jobs")
    await api.post(f"{JOBS}/{first['id']}/cancel", headers=shown)
    with site.sessions.writing.begin() as session:
        session.get_one(Job, first["id"]).state = State.CANCELLED
    assert (await api.post(JOBS, json=recipe, headers=shown)).status_code == 202


def test_the_limits_hold_for_a_keys_schedules(site: Site, seeds: str) -> None:
    add_teacher(site)
    key_id, _ = made(site, jobs_at_once=1)
    job = spec(kind="build", build=build(seeds))
    wanted = ScheduleSpec(name="n", cron="* * * * *", job=job)
    timetable.create(site, wanted, NOON, by=key_id)
    jobs.submit(site, job, by=key_id)
    run = timetable.run_now(site, "n", NOON)
    assert (run.state, "unfinished jobs" in str(run.detail)) == ("failed", True)
    with site.sessions.reading() as session:
        assert session.query(Schedule).one().key_id == key_id


@pytest.mark.parametrize("streams", [False, True])
async def test_chats_spend_the_days_tokens(
    api: httpx.AsyncClient, site: Site, known: StubTeacher, streams: bool
) -> None:
    key_id, shown = made(site, tokens_per_day=10)
    body = {"model": "stub", "messages": SAID, "stream": streams}
    answer = await api.post("/v1/chat/completions", json=body, headers=shown)
    assert "makes" in answer.text
    assert not streams or ('"usage": {' not in answer.text and "[DONE]" in answer.text)
    detail = (await api.get(f"/api/v1/keys/{key_id}", headers=shown)).json()
    # "What is 2 plus 3?" and "2 plus 3 makes 5. The answer is 5.", as the fake teacher counts.
    assert detail["tokens_today"] == 5 + 9
    refused = await api.post("/v1/chat/completions", json=body, headers=shown)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "tokens_spent")
    assert 1 <= int(refused.headers["Retry-After"]) <= 86400
    quotas.require_tokens(site, key_id, now() + timedelta(days=1))


async def test_whoever_asks_for_the_usage_of_a_stream_gets_it(
    api: httpx.AsyncClient, site: Site, known: StubTeacher
) -> None:
    _, shown = made(site, tokens_per_day=10)
    body = {"model": "stub", "messages": SAID, "stream": True}
    body["stream_options"] = {"include_usage": True}
    answer = await api.post("/v1/chat/completions", json=body, headers=shown)
    assert '"usage": {' in answer.text


def test_builds_and_batches_of_the_day_count(site: Site, seeds: str) -> None:
    add_teacher(site)
    key_id, _ = made(site, tokens_per_day=100)
    wanted = spec(kind="build", build=build(seeds))
    today, before = (jobs.submit(site, wanted, by=key_id).id for _ in range(2))
    with site.sessions.writing.begin() as session:
        for job_id, tokens in ((today, 30), (before, 1000)):
            fields = {"number": 0, "first_row": 0, "rows": 1, "offset": 0}
            session.add(Chunk(job_id=job_id, prompt_tokens=tokens, completion_tokens=20, **fields))
        session.get_one(Job, before).created_at = now() - timedelta(days=1)
    quotas.require_tokens(site, key_id, now())
    batch = Job(id="job-b", kind="batch", name="b", spec={}, key_id=key_id)
    batch.progress = {"tokens": 50}
    with site.sessions.writing.begin() as session:
        session.add(batch)
    with pytest.raises(Problem, match="100 tokens a day"):
        jobs.submit(site, wanted, by=key_id)
    # What asks no teacher is taken.
    jobs.submit(site, spec(kind="serve", model="org/model", name="s"), by=key_id)


async def test_limits_are_changed_lifted_and_checked(api: httpx.AsyncClient, site: Site) -> None:
    _, admin = made(site)
    limits = {"jobs_at_once": 2, "tokens_per_day": 5}
    new = {"name": "guest", "scopes": ["read"], "limits": limits}
    key = (await api.post("/api/v1/keys", json=new, headers=admin)).json()
    path = f"/api/v1/keys/{key['id']}/limits"
    asked = {"requests_per_minute": 7, "jobs_at_once": None}
    changed = (await api.patch(path, json=asked, headers=admin)).json()
    assert (changed["requests_per_minute"], changed["jobs_at_once"]) == (7, None)
    assert changed["tokens_per_day"] == 5
    for wrong in ({"jobs_at_once": 0}, {"jobs": 1}, {"tokens_per_day": "many"}):
        assert (await api.patch(path, json=wrong, headers=admin)).status_code == 422
    missing = await api.patch("/api/v1/keys/key-x/limits", json={}, headers=admin)
    assert missing.status_code == 404
    mine = {"Authorization": f"Bearer {key['key']}"}
    assert (await api.patch(path, json={}, headers=mine)).status_code == 403


@pytest.mark.parametrize("noun", ["keys", "teachers"])
async def test_lists_come_in_pages(api: httpx.AsyncClient, site: Site, noun: str) -> None:
    _, admin = made(site)
    for number in range(4):
        made(site)
        add_teacher(site, f"t{number}")
    seen: list[str] = []
    cursor = None
    while cursor is not None or not seen:
        query = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = (await api.get(f"/api/v1/{noun}", params=query, headers=admin)).json()
        assert len(page[noun]) <= 2
        seen += [row.get("id") or row["name"] for row in page[noun]]
        cursor = page["next"]
    assert len(seen) == len(set(seen)) == (5 if noun == "keys" else 4)
    assert seen == sorted(seen, reverse=noun == "keys")
