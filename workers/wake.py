"""A build that waits for its teachers goes on when one token, or vector, comes back of each."""

import asyncio
from collections.abc import Awaitable, Callable

import aiohttp

from prompts.spec import BuildSpec
from prompts.spec.asked import asked_teachers, embedder_of
from service import jobs, pausing
from service.asking import Endpoint, NoAnswerError, TeacherError
from service.identity import answers, embeds
from service.site import Site
from service.tables import Job, State, Teacher
from workers.work import build_spec, find_endpoints

PROBE_S = 10.0
"""A worker must not be held up by a server that takes connections and says nothing."""

Probe = Callable[[aiohttp.ClientSession, Endpoint, float], Awaitable[None]]
"""Asks for as little as there is; raises `NoAnswerError`."""


def wake(site: Site, job_id: str) -> bool:
    """Let a build go on that is paused for a teacher, judge or embedder, if all that it needs are
    there. Whether it went on."""
    with site.sessions.reading() as session:
        job = session.get(Job, job_id)
        if job is None or job.state != State.PAUSED or job.reason != pausing.TEACHER:
            return False
        spec = build_spec(job)
        names = [*asked_teachers(spec), *([embedder] if (embedder := embedder_of(spec)) else [])]
        known = [session.get(Teacher, name) for name in dict.fromkeys(names)]
    try:
        endpoints = find_endpoints(site, [teacher for teacher in known if teacher is not None])
    except TeacherError:
        return False
    answered = asyncio.run(_ask_all(endpoints, embedder))
    if not answered or not _enough(spec, answered):
        return False
    with site.sessions.writing.begin() as session:
        return pausing.go_on(session, jobs.get(session, job_id))


def _enough(spec: BuildSpec, answered: dict[str, bool]) -> bool:
    """Whether the build has whom it needs: of teachers that stand in for each other one, of all
    others (weighted teachers, judges, the embedder) each."""
    instead = [share.name for share in spec.teachers] if spec.teachers_mode == "fallback" else []
    needed = [there for name, there in answered.items() if name not in instead]
    return all(needed) and (not instead or any(answered.get(name, False) for name in instead))


async def _ask_all(endpoints: dict[str, Endpoint], embedder: str | None) -> dict[str, bool]:
    async with aiohttp.ClientSession() as http:
        probes = [
            _answers(http, endpoint, embeds if name == embedder else answers)
            for name, endpoint in endpoints.items()
        ]
        return dict(zip(endpoints, await asyncio.gather(*probes), strict=True))


async def _answers(http: aiohttp.ClientSession, endpoint: Endpoint, probe: Probe) -> bool:
    try:
        await probe(http, endpoint, PROBE_S)
    except NoAnswerError:
        return False
    return True
