"""The register of teachers as the API uses it: transactions around `service.teachers`, none of
them open while a server is asked."""

import asyncio

from service import teachers
from service.probe import Probe
from service.problems import conflict
from service.site import Site
from service.tables import Teacher
from service.teachers import Registration
from service.vault import seal


async def register(site: Site, registration: Registration, *, check: bool) -> Teacher:
    """Probe and register. Without `check` a server that doesn't answer is registered too. Raises
    problems: what the probe found, or 409 for the name of a teacher that a job is serving."""
    await asyncio.to_thread(_require_free, site, registration.name)
    probe = teachers.probe if check else teachers.probe_again
    found = await probe(registration)
    return await asyncio.to_thread(_write, site, registration, found)


async def probe(site: Site, name: str) -> Teacher:
    """Probe again, and keep what was found. Raises a 404 problem."""
    teacher = await asyncio.to_thread(get, site, name)
    found = await teachers.probe_again(teachers.registration_of(teacher, site.settings))
    return await asyncio.to_thread(_note, site, name, found)


def get(site: Site, name: str) -> Teacher:
    """A teacher by name. Raises a 404 problem."""
    with site.sessions.reading() as session:
        return teachers.get(session, name)


def listing(site: Site, after: str | None = None, limit: int | None = None) -> list[Teacher]:
    """Teachers, by name; `after` is the last name of the page before this one."""
    with site.sessions.reading() as session:
        return teachers.listing(session, after, limit)


def delete(site: Site, name: str) -> None:
    """Forget a teacher. Raises a 404 problem."""
    with site.sessions.writing.begin() as session:
        teachers.delete(session, name)


def _require_free(site: Site, name: str) -> None:
    served = {teacher.name: teacher.serve_job_id for teacher in listing(site)}.get(name)
    if served is not None:
        raise conflict(
            "The name is taken", f"Teacher {name!r} is served by {served}; cancel that first."
        )


def _write(site: Site, registration: Registration, found: Probe) -> Teacher:
    key = registration.api_key
    sealed = None if key is None else seal(site.settings, key.get_secret_value())
    with site.sessions.writing.begin() as session:
        return teachers.register(session, registration, found, api_key_sealed=sealed)


def _note(site: Site, name: str, found: Probe) -> Teacher:
    with site.sessions.writing.begin() as session:
        teacher = teachers.get(session, name)
        teachers.note(teacher, found)
        return teacher
