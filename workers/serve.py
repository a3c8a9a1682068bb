"""Serve jobs: a vLLM server under a lease, registered as a teacher, until it is asked to stop."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import SecretStr

from service import chain, events, jobs, teachers
from service.access import is_loopback
from service.probe import Probe
from service.problems import Problem
from service.secret import derived
from service.shared import StorageError
from service.site import Site
from service.spec import ServeJob
from service.tables import Job, State, Teacher
from service.teachers import Registration
from service.vault import seal
from trainer.compress.vllm_server import Engine, find_engine
from trainer.errors import BadInput
from workers import stopping
from workers.lease import Heart, Lease, claim_job, owner_name, release, write_job
from workers.ledger import LeaseLostError
from workers.telling import Teller
from workers.vllm_server import ServerPlan, VllmServer, free_port, port_is_free

log = logging.getLogger(__name__)

READY_LIMIT_S = 1800.0
"""Large models load for a long time."""
TELL_EVERY_S = 3.0
LOOK_S = 0.5
PROBE_EVERY_S = 15.0
PROBE_LIMIT_S = 60.0
PROBES_MISSED = 3
RESTARTS_ALLOWED = 3
SETTLED_S = 600.0
INSTALL = (
    "Install vLLM in an environment of its own (on a GPU: `pip install vllm==0.32.0`; on a CPU "
    "`make setup` builds .venv-vllm) and name its Python in RETORT_VLLM_PYTHON; or register a "
    "server that runs elsewhere: retort teachers add."
)
Stop = Literal["cancelled", "stopping", "lost"]


class ServeFailedError(Exception):
    """The job can't go on: a reason in one word, and words for a person."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def run(
    site: Site,
    job_id: str,
    *,
    worker_stops: Callable[[], bool] = stopping.requested.is_set,
) -> None:
    """Serve until cancelled, if the job can be claimed. May be called any number of times."""
    settings = site.settings
    with site.sessions.writing() as session:
        lease = claim_job(
            session, job_id, owner_name(), slots=settings.device_slots, lease_s=settings.lease_s
        )
    if lease is None:
        return
    with Heart(site.sessions.writing, settings.lease_s) as heart:
        heart.keep(lease)
        task = _Serving(site, lease, worker_stops)
        over = task.run()
    if over and task.job.parent_id is not None:
        chain.advance(site, task.job.parent_id)


class _Serving:
    """One claim of one serve job."""

    def __init__(self, site: Site, lease: Lease, worker_stops: Callable[[], bool]) -> None:
        self._site, self._lease, self._worker_stops = site, lease, worker_stops
        with site.sessions.reading() as session:
            self.job = jobs.get(session, lease.job_id)
        self._teller = Teller(site.sessions.writing, lease)
        self._probing: threading.Thread | None = None
        self._missed = 0
        self._probed_at = 0.0
        self._was_ready = False

    def run(self) -> bool:
        """Whether the job is over."""
        try:
            why = self._serve_again(self._plan())
        except ServeFailedError as error:
            return self._finish(State.FAILED, error.reason, str(error))
        except LeaseLostError:
            log.warning("%s: taken over by another worker", self.job.id)
            return False
        if why == "stopping":
            return self._put_back()
        if self._was_ready:
            return self._finish(State.SUCCEEDED, "stopped", None)
        return self._finish(State.CANCELLED, "cancelled", "stopped before it had answered")

    def _plan(self) -> ServerPlan:
        spec = jobs.spec_of(self.job)
        assert isinstance(spec, ServeJob)
        try:
            with self._site.sessions.reading() as session:
                model = self._site.store.locate_model(session, spec.model)
        except Problem as problem:
            raise ServeFailedError("bad_input", f"{problem.title}: {problem.detail}") from problem
        except StorageError as error:
            raise ServeFailedError("storage", str(error)) from error
        if spec.port is not None and not port_is_free(spec.port):
            words = f"port {spec.port} is taken; stop what listens there, or leave `port` out"
            raise ServeFailedError("port_taken", words)
        return ServerPlan(
            engine=self._engine(),
            model=model,
            name=spec.name,
            port=spec.port or self._port_as_before(spec.name) or free_port(),
            log=self._site.settings.data_dir / "work" / self.job.id / "vllm.log",
            max_model_len=spec.max_model_len,
            max_logprobs=spec.max_logprobs,
            host=self._site.settings.serve_host,
            key=self._key(),
        )

    def _key(self) -> str | None:
        """What a server that other machines reach asks for: the same each time, for builds that
        wait for it to come back know it."""
        settings = self._site.settings
        return None if is_loopback(settings.serve_host) else derived(settings, self.job.id)

    def _engine(self) -> Engine:
        try:
            engine = find_engine(self._site.settings.vllm_python)
        except BadInput as error:
            raise ServeFailedError("no_vllm", f"{error.title}. {INSTALL}") from error
        if engine is None:
            raise ServeFailedError("no_vllm", f"No vLLM was found. {INSTALL}")
        return engine

    def _port_as_before(self, name: str) -> int | None:
        """A job that is taken up again answers where it did: its clients wait for it there."""
        with self._site.sessions.reading() as session:
            teacher = session.get(Teacher, name)
        if teacher is None or teacher.serve_job_id != self.job.id:
            return None
        port = int(teacher.base_url.rpartition(":")[2].partition("/")[0])
        return port if port_is_free(port) else None

    def _serve_again(self, plan: ServerPlan) -> Stop:
        """Run servers until one is asked to stop."""
        deaths = 0
        while True:
            server = VllmServer(plan)
            try:
                why = self._serve(server)
            finally:
                # An exception must not leave a server behind that nobody watches.
                server.kill() if self._lease.lost.is_set() else server.stop()
            if why == "lost":
                raise LeaseLostError(self.job.id)
            if why is not None:
                return why
            settled = time.monotonic() - server.started_at > SETTLED_S
            deaths = 1 if settled else deaths + 1
            words = " | ".join(server.last_words(6))
            if not self._was_ready or deaths > RESTARTS_ALLOWED:
                raise ServeFailedError("server_failed", f"{words}. Its log: {plan.log}")
            self._teller.tell("crash", {"detail": f"the server is started again: {words}"})
            self._teller.show(ready=False)
            self._teller.flush(force=True)

    def _serve(self, server: VllmServer) -> Stop | None:
        """Why it was stopped; None if it ended by itself, hung, or never answered."""
        stop = self._wait_ready(server)
        if stop is not None or server.ended() is not None:
            return stop
        self._register(server)
        while (stop := self._stop()) is None:
            if server.ended() is not None or self._hangs(server):
                return None
            time.sleep(LOOK_S)
        return stop

    def _wait_ready(self, server: VllmServer) -> Stop | None:
        told_at = float("-inf")
        while server.ended() is None:
            if (stop := self._stop()) is not None:
                return stop
            elapsed = time.monotonic() - server.started_at
            if elapsed > READY_LIMIT_S:
                words = f"no answer after {elapsed:.0f} s: {' | '.join(server.last_words(4))}"
                raise ServeFailedError("server_failed", words)
            if server.answers(timeout_s=10):
                return None
            if elapsed - told_at >= TELL_EVERY_S:
                told_at = elapsed
                self._tell_waiting(server, elapsed)
            time.sleep(LOOK_S)
        return None

    def _tell_waiting(self, server: VllmServer, elapsed: float) -> None:
        last = "".join(server.last_words())[-160:]
        facts = {"done": round(elapsed), "unit": "s", "detail": last}
        self._teller.show(phase="starting vLLM", ready=False)
        self._teller.tell("progress", facts)
        self._teller.show(detail=last)
        self._teller.flush(force=True)

    def _register(self, server: VllmServer) -> None:
        plan, spec = server.plan, jobs.spec_of(self.job)
        assert isinstance(spec, ServeJob)
        registration = Registration(
            name=plan.name,
            base_url=plan.base_url,
            served_model=plan.name,
            api_key=SecretStr(plan.key) if plan.key else None,
            # The reference, for other hosts may have it elsewhere.
            model=spec.model if Path(plan.model).is_dir() else None,
        )
        try:
            probe = asyncio.run(teachers.probe(registration))
        except Problem as problem:
            words = f"{problem.title}: {problem.detail}"
            raise ServeFailedError("server_failed", words) from problem
        with self._site.sessions.writing.begin() as session:
            # The lease first: a zombie must not take the name away from its successor.
            if not write_job(session, self._lease, {"waiting_for": None}):
                raise LeaseLostError(self.job.id)
            sealed = seal(self._site.settings, plan.key) if plan.key else None
            teachers.register(session, registration, probe, self.job.id, sealed)
        self._was_ready = True
        self._missed, self._probed_at = 0, time.monotonic()
        seconds = round(time.monotonic() - server.started_at, 1)
        facts = {"ready": True, "url": plan.base_url, "teacher": plan.name, "seconds": seconds}
        self._teller.tell("phase", {"name": "serving", "detail": plan.base_url})
        self._teller.tell("ready", facts)
        self._teller.show(ready=True, url=plan.base_url)
        self._teller.flush(force=True)
        if self.job.parent_id is not None:
            self._site.broker.ring("recipe", self.job.parent_id)

    def _stop(self) -> Stop | None:
        self._teller.flush()
        if self._lease.lost.is_set():
            return "lost"
        with self._site.sessions.reading() as session:
            if jobs.get(session, self.job.id).cancel_requested:
                return "cancelled"
        return "stopping" if self._worker_stops() else None

    def _hangs(self, server: VllmServer) -> bool:
        """Whether it has missed too many probes; they run beside, so that a cancel isn't late."""
        if self._probing is not None and self._probing.is_alive():
            return False
        if self._missed >= PROBES_MISSED:
            return True
        if time.monotonic() - self._probed_at >= PROBE_EVERY_S:
            self._probed_at = time.monotonic()
            self._probing = threading.Thread(target=self._probe, args=(server,), daemon=True)
            self._probing.start()
        return False

    def _probe(self, server: VllmServer) -> None:
        self._missed = 0 if server.answers(PROBE_LIMIT_S) else self._missed + 1

    def _put_back(self) -> bool:
        data: dict[str, Any] = {"state": State.QUEUED, "reason": "put_back"}
        with self._site.sessions.writing.begin() as session:
            values = {"attempts": Job.attempts - 1, "progress": {"ready": False}}
            if write_job(session, self._lease, values):
                detail = {"detail": "the worker stopped; it is served again by the next"}
                events.emit(session, self.job.id, events.STATE, data | detail)
        with self._site.sessions.writing() as session:
            release(session, self._lease)
        return False

    def _finish(self, state: State, reason: str, detail: str | None) -> bool:
        with self._site.sessions.writing.begin() as session:
            ended = jobs.finish(
                session, self.job.id, self._lease.epoch, state, reason=reason, detail=detail
            )
            if ended:
                _note_absence(session.get(Teacher, self.job.name), self.job.id)
        return ended


def _note_absence(teacher: Teacher | None, job_id: str) -> None:
    """A teacher whose server is gone stays known, and says why it doesn't answer."""
    if teacher is not None and teacher.serve_job_id == job_id:
        error = f"its server, job {job_id}, has ended; serve the model again"
        gone = Probe.model_validate(teacher.probe | {"ok": False, "error": error})
        teachers.note(teacher, gone)
