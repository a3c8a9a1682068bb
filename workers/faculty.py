"""The teachers of one drain: who is asked for a row, and whether each is still the same."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import aiohttp
from sqlalchemy.orm import Session

from prompts.plan import Request
from prompts.record import Call
from service.asking import Endpoint, TeacherError
from service.identity import Identity, identify, read_identity
from service.pace import Pace
from service.site import Site
from service.tables import JobTeacher
from workers.cache import Cache
from workers.ledger import Entry
from workers.scorer import Scorer
from workers.sql import in_session
from workers.teacher import Asker, Gone, Ready, Trouble, changed
from workers.work import Work


class Faculty:
    """An `Asker` for each teacher that the build may ask."""

    def __init__(self, http: aiohttp.ClientSession, site: Site, work: Work, gone: Gone) -> None:
        self._http, self._site, self._work, self._gone = http, site, work, gone
        self.askers: dict[str, Asker] = {}
        self._identities: dict[str, Identity] = {}
        self._cache = Cache(work.root, work.shared) if work.spec.cache else None
        self._scorer: Scorer | None = None
        chain = [teacher.name for teacher in work.spec.teachers]
        for name in reversed(list(work.endpoints)):
            self.askers[name] = self._asker(name)
            if work.spec.teachers_mode == "fallback" and name in chain[:-1]:
                after = chain[chain.index(name) + 1]
                self.askers[name].instead = self.askers[after]
        if work.in_process:
            self._scorer = Scorer(work.spec.teacher, work.directories[work.spec.teacher])
            self.askers[work.spec.teacher].answer = self._scorer.answer

    async def start(self) -> None:
        """Meet all teachers, before anything is asked. Raises `TeacherError`."""
        await asyncio.gather(*(asker.start() for asker in self.askers.values()))

    async def ask(self, request: Request, ready: Ready) -> Entry | None:
        """The answer, from the cache if the build asks for that and it is there; None if the
        drain was stopped first."""
        name = request.teacher
        if self._cache is None or name not in self._identities:
            return _entry(await self.askers[name].ask(request, ready))
        key = self._cache.key(request, self._identities[name])
        known = await asyncio.to_thread(self._cache.get, key, request)
        if known is not None:
            return Entry(known.model_copy(update={"teacher": name}), 0.0, cached=True)
        answer = await self.askers[name].ask(request, ready)
        if answer is not None and answer[0].teacher == name:
            await asyncio.to_thread(self._cache.put, key, answer[0])
        return _entry(answer)

    def grant(self, shares: Mapping[str, int]) -> None:
        """How many requests each teacher may be sent at once from here."""
        for name, share in shares.items():
            self.askers[name].pace.grant(share)

    def in_flight(self) -> dict[str, int]:
        """Requests under way at each teacher."""
        return {name: asker.pace.in_flight for name, asker in self.askers.items()}

    def trouble(self) -> tuple[Endpoint, Trouble] | None:
        """The teacher that has been silent for longest, and why."""
        silent = [asker for asker in self.askers.values() if asker.trouble.since is not None]
        if not silent:
            return None
        worst = min(silent, key=lambda asker: asker.trouble.since or 0.0)
        return worst.endpoint, worst.trouble

    def shut(self) -> None:
        """Nothing more is to be asked."""
        for asker in self.askers.values():
            asker.shut()

    def close(self) -> None:
        """Nothing is under way any more: memory that a teacher in process takes is given back."""
        if self._scorer is not None:
            self._scorer.close()

    async def _identity(self, endpoint: Endpoint, directory: Path | None) -> Identity:
        if self._scorer is None:
            return await identify(self._http, endpoint, directory)
        await asyncio.to_thread(self._scorer.load)
        return await asyncio.to_thread(read_identity, endpoint.model, directory)

    def _asker(self, name: str) -> Asker:
        async def meet() -> None:
            await self._meet(name)

        # Nothing is sent before the first look at SQL has said how much of the teacher is free.
        patience_s = self._site.settings.teacher_patience_s
        endpoint = self._work.endpoints[name]
        return Asker(self._http, endpoint, Pace(0), patience_s, meet, self._gone)

    async def _meet(self, name: str) -> None:
        endpoint, job_id = self._work.endpoints[name], self._work.job_id
        writing = self._site.sessions.writing
        try:
            now = await self._identity(endpoint, self._work.directories[name])
        except TeacherError as error:
            begun = await asyncio.to_thread(in_session, writing, _known, job_id, name)
            if begun is not None and error.reason == "teacher_unknown_model":
                raise changed(endpoint, str(error)) from error
            raise
        first = await asyncio.to_thread(in_session, writing, _remember, job_id, name, now)
        changes = first.changes(now)
        if changes:
            raise changed(endpoint, "; ".join(changes))
        self._identities[name] = now


def _entry(answer: tuple[Call, float] | None) -> Entry | None:
    return Entry(*answer) if answer is not None else None


def _known(session: Session, job_id: str, teacher: str) -> Identity | None:
    row = session.get(JobTeacher, (job_id, teacher))
    return Identity.model_validate(row.identity) if row is not None else None


def _remember(session: Session, job_id: str, teacher: str, now: Identity) -> Identity:
    """Who the teacher was when the job began: `now`, if nobody looked before; commits."""
    known = _known(session, job_id, teacher)
    if known is None:
        session.add(JobTeacher(job_id=job_id, teacher=teacher, identity=now.model_dump()))
        session.commit()
    return known or now
