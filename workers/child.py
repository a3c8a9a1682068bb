"""Jobs that run as child processes of a worker: train, compress and report.

The worker holds the lease, tells SQL what the child says, and stops it when the job is cancelled,
the worker ends or the lease is lost. How the child ended decides how the job goes on
(docs/architecture.md has the exit codes).
"""

import logging
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy.orm import Session

from service import chain, events, jobs, pausing
from service.problems import Problem
from service.shared import StorageAwayError, StorageError
from service.site import Site
from service.tables import Artifact, Job, State
from workers import checkpoints, stopping
from workers.errands import (
    Command,
    Commands,
    Errand,
    Output,
    Outputs,
    compress_commands,
    compress_outputs,
    train_commands,
    train_outputs,
)
from workers.lease import Heart, Lease, claim_job, owner_name, release, write_job
from workers.ledger import LeaseLostError
from workers.process import Ended, Why, run_process
from workers.reporting import report_commands, report_outputs
from workers.telling import Teller

log = logging.getLogger(__name__)

TRAINER = (sys.executable, "-m", "trainer")
CRASHES_ALLOWED = 3
TERMINATED = 143
"""After SIGTERM: a machine that goes down sends it to all, and the worker may hear of it later."""
CLAIMS_ALLOWED = 10
"""A job that takes its workers down with it is given up in the end."""
DISK_PATIENCE_S = 5.0

ERRANDS: dict[str, tuple[Commands, Outputs]] = {
    "train": (train_commands, train_outputs),
    "compress": (compress_commands, compress_outputs),
    "report": (report_commands, report_outputs),
}


def run(
    site: Site,
    job_id: str,
    *,
    trainer: Sequence[str] = TRAINER,
    worker_stops: Callable[[], bool] = stopping.requested.is_set,
) -> None:
    """Do a train, compress or report job, if it can be claimed. May be called any number of
    times; what an earlier call left half done is taken up."""
    settings = site.settings
    with site.sessions.writing() as session:
        lease = claim_job(
            session,
            job_id,
            owner_name(),
            slots=settings.device_slots,
            lease_s=settings.lease_s,
        )
    if lease is None:
        return
    with Heart(site.sessions.writing, settings.lease_s) as heart:
        heart.keep(lease)
        parent = _Task(site, lease, trainer, worker_stops).run()
    if parent is not None:
        chain.advance(site, parent)


class _StoppedError(Exception):
    """Somebody wants the job stopped while it waits for what it was to write to."""

    def __init__(self, why: Why, waited_for: str) -> None:
        super().__init__(waited_for)
        self.why = why


class _Task:
    """One claim of one job."""

    def __init__(
        self,
        site: Site,
        lease: Lease,
        trainer: Sequence[str],
        worker_stops: Callable[[], bool],
    ) -> None:
        self._site, self._lease = site, lease
        self._trainer, self._worker_stops = trainer, worker_stops
        self._teller = Teller(site.sessions.writing, lease)
        with site.sessions.reading() as session:
            self._job = jobs.get(session, lease.job_id)
        folder = site.settings.data_dir / "work" / lease.job_id
        self._errand = Errand(site, self._job, folder)
        self._looked_at = 0.0
        self._wished = _wish_of(self._job)

    def run(self) -> str | None:
        """The parent to advance, None if there is none or the job isn't over."""
        try:
            over = self._told()
        except LeaseLostError:
            log.warning("%s: taken over by another worker", self._lease.job_id)
            return None
        return self._job.parent_id if over else None

    def _told(self) -> bool:
        """Whether the job is over; what is wrong with its inputs or the store is told."""
        try:
            return self._patiently()
        except _StoppedError as stopped:
            return self._stopped(stopped.why, str(stopped))
        except StorageError as error:
            return self._finish(State.FAILED, "storage", str(error))
        except Problem as problem:
            return self._finish(State.FAILED, "bad_input", f"{problem.title}: {problem.detail}")

    def _patiently(self) -> bool:
        """Work; while the bucket doesn't answer, wait: what was made is taken up again."""
        while True:
            try:
                return self._work()
            except StorageAwayError as error:
                self._wait("storage_away", str(error))

    def _wait(self, kind: str, detail: str) -> None:
        """A while, for what can't be written to just now."""
        self._write_waiting(kind, detail)
        time.sleep(DISK_PATIENCE_S)
        if (why := self._stop()) is not None:
            raise _StoppedError(why, detail)

    def _stopped(self, why: Why, detail: str) -> bool:
        if why == "lost":
            raise LeaseLostError(self._job.id)
        if why == "cancelled":
            return self._finish(State.CANCELLED, "cancelled")
        return self._rest() if why == "paused" else self._give_back(detail)

    def _work(self) -> bool:
        """Whether the job is over."""
        self._errand.folder.mkdir(parents=True, exist_ok=True)
        if self._job.attempts > CLAIMS_ALLOWED:
            detail = f"{self._job.attempts - 1} workers died on it; see {self._errand.folder}"
            return self._finish(State.FAILED, "crashed", detail)
        if self._job.kind != "report":
            checkpoints.take_up(self._site, self._lease, self._errand.out, self._teller.tell)
        commands, outputs = ERRANDS[self._job.kind]
        for command in commands(self._errand):
            ended = self._run(command)
            if ended.stopped is not None or ended.code != 0:
                return self._ended_early(command, ended, outputs)
        result = self._publish(outputs(self._errand))
        over = self._finish(State.SUCCEEDED, result=result)
        # Everything that counts has been published; checkpoints are large.
        shutil.rmtree(self._errand.out, ignore_errors=True)
        checkpoints.forget(self._site, self._job.id)
        return over

    def _run(self, command: Command) -> Ended:
        self._teller.tell("phase", {"name": command.name, "detail": command.detail})
        self._teller.flush(force=True)
        line = command_line(self._trainer, command, self._site.settings.train_processes)
        log_file = self._errand.folder / f"{command.name}.log"
        out, tell = self._errand.out, self._teller.tell
        with checkpoints.copied(self._site, self._lease, out, tell) as hear:
            ended = run_process(line, log_file, hear, self._stop)
        self._teller.flush(force=True)
        if ended.stopped == "lost" or self._lease.lost.is_set():
            raise LeaseLostError(self._job.id)
        return ended

    def _stop(self) -> Why | None:
        self._teller.flush()
        if self._lease.lost.is_set() or not self._lease.held():
            return "lost"
        return self._wish() or ("stopping" if self._worker_stops() else None)

    def _wish(self) -> Why | None:
        """What somebody asked of the job, looked up once a second."""
        if self._wished != "cancelled" and time.monotonic() - self._looked_at >= 1.0:
            self._looked_at = time.monotonic()
            with self._site.sessions.reading() as session:
                self._wished = _wish_of(jobs.get(session, self._lease.job_id))
        return self._wished

    def _ended_early(self, command: Command, ended: Ended, outputs: Outputs) -> bool:
        if ended.stopped is not None:
            return self._stopped(ended.stopped, "the worker stopped")
        made = self._made(outputs)
        if ended.code == 3:
            return self._fail("gate", _gate(ended, made), made)
        if ended.code == TERMINATED:
            return self._give_back(f"{command.name} was ended from outside", counted=True)
        # A launcher of several processes has an exit code of its own; the words come through.
        if ended.code == 2 or (ended.error is not None and not ended.error.get("again")):
            return self._fail("bad_input", ended.words, made)
        return self._crashed(command, ended, made)

    def _made(self, outputs: Outputs) -> list[Output]:
        """What was whole when the job failed: stages that are done, a student not yet measured."""
        if self._job.kind == "report":
            return []
        made = outputs(self._errand)
        return made if all(output.source.is_dir() for output in made) else []

    def _fail(self, reason: str, detail: str, made: list[Output]) -> bool:
        return self._finish(State.FAILED, reason, detail, self._publish(made) if made else {})

    def _crashed(self, command: Command, ended: Ended, made: list[Output]) -> bool:
        detail = f"{command.name} ended with {ended.code}"
        facts = {"detail": detail, "attempt": self._job.attempts, "log": list(ended.log)}
        self._write(lambda session: events.emit(session, self._lease.job_id, "crash", facts))
        if self._job.attempts < CRASHES_ALLOWED:
            return self._give_back(detail, counted=True)
        lines = "\n".join(ended.log[-8:])
        said = f"{detail}, {self._job.attempts} times. The end of its log:\n{lines}"
        return self._fail("crashed", said, made)

    def _rest(self) -> bool:
        """Paused at its checkpoint; back into the queue if nobody wants that any more."""
        with self._site.sessions.writing.begin() as session:
            rests = pausing.rest(session, self._lease.epoch, self._job.id)
        return False if rests else self._give_back("the pause was withdrawn")

    def _give_back(self, why: str, counted: bool = False) -> bool:
        """Back into the queue: whoever claims it next goes on from the last checkpoint."""

        def put_back(session: Session) -> None:
            if not counted:
                write_job(session, self._lease, {"attempts": Job.attempts - 1})
            data = {"state": State.QUEUED, "reason": "put_back", "detail": why}
            events.emit(session, self._lease.job_id, events.STATE, data)

        self._write(put_back)
        with self._site.sessions.writing() as session:
            release(session, self._lease)
        self._site.broker.ring(self._job.kind, self._job.id)
        return False

    def _publish(self, outputs: list[Output]) -> dict[str, Any]:
        """Publish what was made, in order; ids of the last that passed, and of all."""
        made: list[Artifact] = []
        for output in outputs:
            came_from = [made[output.after].id] if output.after is not None else []
            made.append(self._publish_one(output, output.inputs + came_from))
        result: dict[str, Any] = {}
        models = [artifact.id for artifact in made if artifact.kind == "model"]
        passed = [each.id for each, output in zip(made, outputs, strict=True) if output.passed]
        if self._job.kind == "report":
            return {"report": made[0].id}
        if passed:
            result["model"] = passed[-1]
        if self._job.kind == "compress":
            result["models"] = models
        return result

    def _publish_one(self, output: Output, inputs: list[str]) -> Artifact:
        """Publish, waiting for space if the disk is full: what was computed isn't thrown away."""
        self._teller.tell("phase", {"name": "publish", "detail": output.name})
        self._teller.flush(force=True)
        while True:
            try:
                return self._publish_now(output, inputs)
            except Problem as problem:
                if problem.status != 507:
                    raise
                self._wait("disk_full", problem.detail)

    def _publish_now(self, output: Output, inputs: list[str]) -> Artifact:
        if self._lease.lost.is_set():
            raise LeaseLostError(self._job.id)
        with self._site.sessions.writing.begin() as session:
            artifact = self._site.store.publish(
                session,
                output.kind,
                output.name,
                output.source,
                summary=output.summary,
                inputs=inputs,
                job_id=self._job.id,
            )
            data = {"kind": artifact.kind, "id": artifact.id, "name": artifact.name}
            events.emit(session, self._job.id, "published", data)
        return artifact

    def _write_waiting(self, kind: str, detail: str) -> None:
        self._write(
            lambda session: events.emit(session, self._job.id, kind, {"detail": detail}),
            waiting_for=detail,
        )

    def _finish(
        self,
        state: State,
        reason: str | None = None,
        detail: str | None = None,
        result: dict[str, Any] | None = None,
    ) -> bool:
        with self._site.sessions.writing.begin() as session:
            epoch = self._lease.epoch
            if not jobs.finish(
                session, self._job.id, epoch, state, reason=reason, detail=detail, result=result
            ):
                raise LeaseLostError(self._job.id)
        return True

    def _write(self, act: Callable[[Session], Any], **values: Any) -> None:
        with self._site.sessions.writing.begin() as session:
            values.setdefault("waiting_for", None)
            if not write_job(session, self._lease, values):
                raise LeaseLostError(self._job.id)
            act(session)


def _wish_of(job: Job) -> Why | None:
    if job.cancel_requested:
        return "cancelled"
    return "paused" if job.pause_requested else None


def command_line(trainer: Sequence[str], command: Command, processes: int) -> list[str]:
    """The child's command. One process runs the trainer itself: accelerate's launcher would only
    add seconds, a second process to signal, and an exit code of its own in place of ours."""
    if command.alone or processes == 1:
        return [*trainer, *command.arguments]
    launcher = ("-m", "accelerate.commands.launch", "--num_processes", str(processes), "--module")
    return [trainer[0], *launcher, trainer[-1], *command.arguments]


def _gate(ended: Ended, made: list[Output]) -> str:
    # A point of a sweep that loses too much ends nothing.
    refused = [each for each in made if not each.passed and each.summary["stage"]["sweep"] is None]
    said = [
        f"{output.summary['stage']['kind']}: {'; '.join(output.summary['stage']['failures'])}"
        for output in refused
    ]
    return " | ".join(said) or ended.words
