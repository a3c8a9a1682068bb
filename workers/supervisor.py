"""The embedded stack under one supervisor: `retort up`, or `python -m workers.supervisor`.

Brings up Redis, database, API, workers and beat, says so line by line, starts again what dies, and
on Ctrl-C stops all of it, the jobs' own processes included. Killed itself, it leaves nothing
running: each part stands under a keeper that ends with its parent.
"""

import argparse
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

import psutil
from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from service import db, keys, login, runtime, settings
from service.access import is_loopback
from service.settings import Settings, broker_socket
from service.tables import now
from workers import stack
from workers.data_lock import DataLock, Refused, clear_leftovers, kill_tree
from workers.part import Part, PartPlan
from workers.pings import Pings

START_LIMIT_S = 120.0
POLL_S = 0.2
DEATHS_AT_START = 3
"""A part that dies so often before it was ready won't come up by trying again."""
SILENCE_LIMIT_S = 60.0
STOP_LIMIT_S = 15.0


def main() -> None:
    """Run the stack until a signal ends it. Exits with 1 if it can't come up."""
    try:
        wanted = _settings(_arguments())
        lock = DataLock(wanted.data_dir)
        lock.acquire()
        Supervisor(wanted).run()
    except (Refused, ValidationError) as error:
        print(f"retort up: {error}", file=sys.stderr, flush=True)
        sys.exit(1)


class Supervisor:
    """Owns the parts from the first to the last."""

    def __init__(self, wanted: Settings) -> None:
        self.settings = wanted
        self.parts: list[Part] = []
        self._began = time.monotonic()
        self._stop = threading.Event()
        self._signals = 0
        self._pings = Pings(wanted.broker_url)
        self._described = _description(wanted)

    def run(self) -> None:
        """Up, watch, down. Raises Refused if it can't come up; then nothing runs any more."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        try:
            self._bring_up()
            self._watch()
        finally:
            self._bring_down()

    def _bring_up(self) -> None:
        self._say("data", "locked", f"{self.settings.data_dir}  pid {os.getpid()}")
        self._check_disk()
        leftovers = clear_leftovers(self.settings.data_dir)
        if leftovers:
            self._say("cleanup", "done", f"{leftovers} parts of an earlier run had to go")
        note = self._choose_port()
        runtime.write(self.settings.data_dir, self._described)
        environment = stack.child_environment(self.settings)
        self._start_redis(environment)
        self._migrate()
        self._pings.start()
        workers = [self._worker(queue, environment) for queue in _queues(self.settings)]
        api = stack.api_plan(self.settings, environment, note)
        self._start_together([api, *workers, stack.beat_plan(self.settings, environment)])
        if not self._stop.is_set():
            self._describe(ready=True)
            self._say("dashboard", "ready", login.link(self.settings, self.settings.api_url))
            self._say("up", "ready", f"{self.settings.api_url}  Ctrl-C stops everything")

    def _check_disk(self) -> None:
        free = shutil.disk_usage(self.settings.data_dir).free
        if free < self.settings.min_free_bytes:
            raise Refused(
                f"{self.settings.data_dir} has {free / 2**20:.0f} MiB free and needs "
                f"{self.settings.min_free_bytes / 2**20:.0f} (RETORT_MIN_FREE_BYTES): free some "
                "space, or give another --data-dir."
            )
        self._say("disk", "ok", f"{free / 2**30:.1f} GiB free")

    def _choose_port(self) -> str:
        port = stack.free_port(self.settings.host, self.settings.port)
        note = f"  (port {self.settings.port} was taken)" if self.settings.port else ""
        if port == self.settings.port:
            return ""
        self.settings = _with_port(self.settings, port)
        self._described = self._described.model_copy(update={"url": self.settings.api_url})
        return note

    def _start_redis(self, environment: dict[str, str]) -> None:
        address = broker_socket(self.settings.data_dir)
        if self.settings.broker_url != f"redis+socket://{address}":
            self._say("redis", "given", self.settings.broker_url.rpartition("@")[2])
            return
        self._start_together([stack.redis_plan(self.settings, address, environment)])

    def _migrate(self) -> None:
        try:
            engine = db.make_engine(self.settings.database_url)
            db.upgrade(engine)
            with db.sessions(engine).reading() as session:
                shut = keys.any_made(session)
            engine.dispose()
        except SQLAlchemyError as error:
            raise Refused(f"the database can't be used: {error}") from error
        if not (shut or is_loopback(self.settings.host)):
            raise Refused(
                f"{self.settings.host} can be reached by other machines, and no key was made. Make "
                "one first: retort keys create NAME --scope admin"
            )
        self._say("database", "ready", f"{engine.url.render_as_string(hide_password=True)}")

    def _worker(self, queue: str, environment: dict[str, str]) -> PartPlan:
        count = stack.worker_concurrency(self.settings)[queue]
        began = time.monotonic()

        def answered() -> bool:
            self._pings.hurry()
            return self._pings.answered_since(stack.node(queue), began)

        return stack.worker_plan(self.settings, queue, count, environment, answered)

    def _start_together(self, plans: list[PartPlan]) -> None:
        """Start the parts and wait until all are ready, or a signal comes."""
        waiting = [Part(plan) for plan in plans]
        self.parts += waiting
        for part in waiting:
            part.start()
        self._describe()
        deadline = time.monotonic() + START_LIMIT_S
        while waiting and not self._stop.is_set():
            ready = [part for part in waiting if self._is_ready(part)]
            for part in ready:
                self._say(part.plan.name, "ready", part.plan.says)
            waiting = [part for part in waiting if part not in ready]
            if waiting and time.monotonic() > deadline:
                raise self._failed(waiting[0], f"was not ready in {START_LIMIT_S:.0f} s")
            if waiting:
                self._stop.wait(POLL_S)

    def _is_ready(self, part: Part) -> bool:
        code = part.died()
        if code is not None and part.deaths >= DEATHS_AT_START:
            raise self._failed(part, f"ended with {code}, {part.deaths} times")
        if part.process is None:
            if part.due():
                part.start()
            return False
        return part.plan.ready()

    def _watch(self) -> None:
        while not self._stop.wait(POLL_S):
            for part in self.parts:
                self._mend(part)
                part.keep_log_short()

    def _mend(self, part: Part) -> None:
        code = part.died()
        if code is not None:
            wait_s = max(0.0, part.start_again_at - time.monotonic())
            self._say(part.plan.name, "ended", f"with {code}; starts again in {wait_s:.1f} s")
        elif part.due():
            part.start()
            self._describe(ready=True)
            self._say(part.plan.name, "started", f"again, log: {part.plan.log}")
        elif part.plan.listens and part.process is not None:
            silent_s = self._pings.silent_s(stack.node(part.plan.name), part.started_at)
            if silent_s > SILENCE_LIMIT_S:
                self._say(part.plan.name, "silent", f"for {silent_s:.0f} s; is restarted")
                part.ask_to_stop()
                part.wait(part.plan.grace_s + 1)

    def _bring_down(self) -> None:
        self._pings.close()
        broker = [part for part in self.parts if part.plan.name == "redis"]
        others = [part for part in reversed(self.parts) if part not in broker]
        # Redis last: workers that stop still tell it so.
        for group in (others, broker):
            self._stop_group(group)
        address = broker_socket(self.settings.data_dir)
        address.unlink(missing_ok=True)
        runtime.remove(self.settings.data_dir)
        self._say("down", "stopped", "nothing is left running")

    def _stop_group(self, group: list[Part]) -> None:
        for part in group:
            part.ask_to_stop()
        deadline = time.monotonic() + STOP_LIMIT_S
        for part in group:
            while not part.wait(POLL_S):
                if part.process and (self._signals > 1 or time.monotonic() > deadline):
                    kill_tree(psutil.Process(part.process.pid))

    def _failed(self, part: Part, why: str) -> Refused:
        lines = "\n".join(f"  | {line}" for line in part.last_lines())
        return Refused(f"{part.plan.name} {why}. The end of {part.plan.log}:\n{lines}")

    def _describe(self, ready: bool = False) -> None:
        pids = {part.plan.name: part.process.pid for part in self.parts if part.process}
        self._described = self._described.model_copy(update={"parts": pids, "ready": ready})
        runtime.write(self.settings.data_dir, self._described)

    def _say(self, phase: str, state: str, detail: str) -> None:
        elapsed = time.monotonic() - self._began
        print(f"[{elapsed:5.1f} s] {phase:<9} {state:<8} {detail}", flush=True)

    def _on_signal(self, number: int, _frame: object) -> None:
        self._signals += 1
        self._stop.set()


def _queues(wanted: Settings) -> list[str]:
    return list(stack.worker_concurrency(wanted))


def _description(wanted: Settings) -> runtime.Runtime:
    return runtime.Runtime(
        pid=os.getpid(),
        url=wanted.api_url,
        data_dir=str(wanted.data_dir),
        broker=wanted.broker_url.rpartition("@")[2],
        started_at=now().isoformat(timespec="seconds"),
    )


def _with_port(wanted: Settings, port: int) -> Settings:
    return wanted.model_copy(update={"port": port, "api_url": f"http://{wanted.host}:{port}"})


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="retort up", description=__doc__)
    parser.add_argument("--data-dir", type=Path, help="where everything is kept")
    parser.add_argument("--host", help="address that the API listens on")
    parser.add_argument("--port", type=int, help="port of the API; the next free one if taken")
    return parser.parse_args()


def _settings(given: argparse.Namespace) -> Settings:
    """The environment's settings, with the command line's words over them."""
    words = {"DATA_DIR": given.data_dir, "HOST": given.host, "PORT": given.port}
    os.environ |= {f"RETORT_{name}": str(word) for name, word in words.items() if word is not None}
    return settings.load()


if __name__ == "__main__":
    main()
