"""A batch: every request of a file is asked and answered once, whoever dies meanwhile.

One worker holds the job's lease and keeps a sliding window of requests in flight; an answer is
durable (workers/answers.py) before its place in the window is free.
"""

import asyncio
import logging
import time
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
from sqlalchemy.exc import OperationalError

from service import batches, events, jobs
from service.asking import TeacherError
from service.batches import Ask, BatchInputError
from service.quotas import tokens_of
from service.shared import StorageAwayError
from service.site import Site
from service.tables import State, now, utc
from workers import stopping
from workers.answers import (
    AnswerLog,
    Line,
    answers_folder,
    is_error,
    publish_answers,
    read_answers,
)
from workers.batch_teachers import Teachers, line_of
from workers.batch_work import Work, load_work
from workers.lease import Heart, Lease, claim_job, owner_name, release, write_job
from workers.ledger import LeaseLostError
from workers.pulse import others_wait
from workers.window import Window

log = logging.getLogger(__name__)

LOOK_S = 1.0
GRACE_S = {"cancelled": 20.0, "expired": 20.0, "yield": 60.0, "shutdown": 5.0, "failed": 0.0}
"""How long requests under way may take to end by themselves: they are paid for."""


def run(site: Site, job_id: str) -> None:
    """Do a batch, if it can be claimed. May be called any number of times."""
    with site.sessions.writing() as session:
        lease = claim_job(session, job_id, owner_name(), lease_s=site.settings.lease_s)
    if lease is None:
        return
    with Heart(site.sessions.writing, site.settings.lease_s) as heart:
        heart.keep(lease)
        try:
            _run(site, lease)
        except LeaseLostError:
            log.warning("%s: taken over by another worker", job_id)
        except BatchInputError as error:
            _finish(site, lease, State.FAILED, {"errors": error.faults}, "bad_input", str(error))
        except TeacherError as error:
            _finish(site, lease, State.FAILED, {}, error.reason, str(error))
        except StorageAwayError as error:
            log.warning("%s: %s", job_id, error)
            with site.sessions.writing() as session:
                release(session, lease)  # The next tick brings somebody here again.
        except OSError as error:
            _finish(site, lease, State.FAILED, {}, "storage", f"{error}; answers are kept")


def _run(site: Site, lease: Lease) -> None:
    batch = Batch(site, lease, load_work(site, lease.job_id))
    asyncio.run(batch.run())
    if batch.stopped in ("shutdown", "yield"):
        # Behind those that wait already: the queue is first in, first out.
        with site.sessions.writing() as session:
            release(session, lease)
        site.broker.ring("batch", lease.job_id)
        return
    batch.tell("finalizing")
    result = publish_answers(site, batch.work.job, batch.lines(), len(batch.work.asks))
    if batch.stopped == "cancelled":
        _finish(site, lease, State.CANCELLED, result, "cancelled", None)
    else:
        _finish(site, lease, State.SUCCEEDED, result, batch.stopped, None)


@dataclass
class Batch:
    """One worker's run of one batch."""

    site: Site
    lease: Lease
    work: Work
    stopped: str | None = None
    """Why it ended before its requests did: a key of GRACE_S."""
    _error: BaseException | None = None
    _failed: int = 0
    _tokens: int = 0
    _done: set[str] = field(default_factory=set)
    """custom_ids that were answered, for good or ill."""
    _started: float = field(default_factory=time.monotonic)
    _moments: dict[str, int] = field(default_factory=dict)
    _teachers: Teachers = field(init=False)

    def __post_init__(self) -> None:
        self._teachers = Teachers(self.site, self.work, self.lease)

    @property
    def folder(self) -> Path:
        """Where its answers are kept."""
        return answers_folder(self.site.store.root, self.work.job.id)

    async def run(self) -> None:
        """Ask what isn't answered yet. Raises what ended it: `LeaseLostError`, OSError."""
        self._moments = {k: v for k, v in self.work.job.progress.items() if k.endswith("_at")}
        self.site.store.shared.pull(self.folder)
        for line in read_answers(self.folder).values():
            self._count(line)
        self.tell("in_progress")
        await self._teachers.look(self._done)
        answers = AnswerLog(self.folder, self.lease, self.site.store.shared.write)
        window = Window(self.work.spec.max_in_flight)
        loops = [asyncio.create_task(work) for work in (self._watch(), answers.run())]
        try:
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
                await self._ask_all(http, window, answers)
                await self._settle(window)
        finally:
            await window.close()
            for task in loops:
                task.cancel()
            await asyncio.gather(*loops, return_exceptions=True)
            await self._teachers.give_back()
        if self._error is not None:
            raise self._error

    def tell(self, phase: str) -> None:
        """Write how far it is. Raises `LeaseLostError`."""
        self._moments.setdefault(f"{phase}_at", int(time.time()))
        progress: dict[str, Any] = {
            "phase": phase,
            "done": len(self._done),
            "total": len(self.work.asks),
            "unit": "requests",
            "completed": len(self._done) - self._failed,
            "failed": self._failed,
            "tokens": self._tokens,
        }
        with self.site.sessions.writing.begin() as session:
            if not write_job(session, self.lease, {"progress": progress | self._moments}):
                raise LeaseLostError(self.lease.job_id)
            events.emit(session, self.lease.job_id, "progress", progress)

    def lines(self) -> list[Line]:
        """What came of the requests, in their order. What was not asked has no line, unless the
        batch expired."""
        self.site.store.shared.pull(self.folder)
        answers = read_answers(self.folder)
        if self.stopped == "expired":
            message = "the batch expired before this request was answered"
            fault = {"code": "batch_expired", "message": message}
            unasked = (line_of(self.lease, ask, None, fault) for ask in self.work.asks)
            answers = {line["custom_id"]: line for line in unasked} | answers
        return [answers[a.custom_id] for a in self.work.asks if a.custom_id in answers]

    async def _ask_all(
        self, http: aiohttp.ClientSession, window: Window, answers: AnswerLog
    ) -> None:
        for ask in self.work.asks:
            if ask.custom_id in self._done:
                continue
            await window.room()
            if self.stopped is not None:
                return
            row = window.start(self._row(http, window, answers, ask))
            row.add_done_callback(self._row_done)

    async def _settle(self, window: Window) -> None:
        """Let what is under way end by itself, as long as that is worth waiting for."""
        stopped_at = None
        while len(window):
            if self.stopped is not None:
                stopped_at = stopped_at or time.monotonic()
                if time.monotonic() - stopped_at > GRACE_S[self.stopped]:
                    return
            await asyncio.sleep(0.02)

    async def _row(
        self, http: aiohttp.ClientSession, window: Window, answers: AnswerLog, ask: Ask
    ) -> None:
        body = await asyncio.to_thread(batches.body_of, self.work.path, ask)
        async with window.slot() as slot:
            line = await self._teachers.answer(http, ask, body)
            if line is not None:
                slot.answered()
                await answers.append(line)
                self._count(line)

    def _row_done(self, task: "asyncio.Task[None]") -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._fail(error)

    def _count(self, line: Line) -> None:
        self._done.add(line["custom_id"])
        self._failed += is_error(line)
        self._tokens += tokens_of((line["response"] or {}).get("body"))

    def _fail(self, error: BaseException) -> None:
        self._error = self._error or error
        self._end("failed")

    def _end(self, why: str) -> None:
        self.stopped = why
        self._teachers.shut()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await asyncio.to_thread(self.tell, "in_progress")
                await self._teachers.look(self._done)
                why = await asyncio.to_thread(self._stop)
                if why is not None and self.stopped is None:
                    self._end(why)
            except OperationalError as error:
                log.warning("%s: the database can't be reached: %s", self.lease.job_id, error)
            except LeaseLostError as error:
                self._fail(error)

    def _stop(self) -> str | None:
        with self.site.sessions.reading() as session:
            job = jobs.get(session, self.lease.job_id)
            others = others_wait(session, job.id)
        if job.cancel_requested:
            return "cancelled"
        if now() > utc(job.created_at) + timedelta(seconds=self.work.spec.window_s):
            return "expired"
        if stopping.requested.is_set():
            return "shutdown"
        if others and time.monotonic() - self._started > self.site.settings.yield_s:
            return "yield"
        return None


def _finish(
    site: Site,
    lease: Lease,
    state: State,
    result: dict[str, Any],
    reason: str | None,
    detail: str | None,
) -> None:
    with site.sessions.writing.begin() as session:
        jobs.finish(
            session, lease.job_id, lease.epoch, state, reason=reason, detail=detail, result=result
        )
