"""A build that waits for its teacher goes on when one token comes back."""

import asyncio

import aiohttp

from prompts.spec.asked import asked_teachers
from service import jobs, pausing
from service.asking import Endpoint, NoAnswerError, TeacherError
from service.identity import answers
from service.site import Site
from service.tables import Job, State, Teacher
from workers.work import build_spec, find_endpoints

PROBE_S = 10.0
"""A worker must not be held up by a server that takes connections and says nothing."""


def wake(site: Site, job_id: str) -> bool:
    """Let a build go on that is paused for its teacher, if that answers. Whether it went on."""
    with site.sessions.reading() as session:
        job = session.get(Job, job_id)
        if job is None or job.state != State.PAUSED or job.reason != pausing.TEACHER:
            return False
        spec = build_spec(job)
        known = [session.get(Teacher, name) for name in asked_teachers(spec)]
    try:
        endpoints = find_endpoints(site, [teacher for teacher in known if teacher is not None])
    except TeacherError:
        return False
    answered = asyncio.run(_ask_all(list(endpoints.values())))
    enough = any if spec.teachers_mode == "fallback" else all
    if not answered or not enough(answered):
        return False
    with site.sessions.writing.begin() as session:
        return pausing.go_on(session, jobs.get(session, job_id))


async def _ask_all(endpoints: list[Endpoint]) -> list[bool]:
    async with aiohttp.ClientSession() as http:
        return await asyncio.gather(*(_answers(http, endpoint) for endpoint in endpoints))


async def _answers(http: aiohttp.ClientSession, endpoint: Endpoint) -> bool:
    try:
        await answers(http, endpoint, PROBE_S)
    except NoAnswerError:
        return False
    return True
