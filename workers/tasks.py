"""What Celery calls by name. Each takes an id and may run any number of times.

The bodies live elsewhere and are imported when they are first needed: a worker of one queue should
not load what another's needs.
"""

import threading
from functools import cache

from celery.signals import worker_init, worker_process_init

from service import logs, spans
from service.broker import TASKS
from service.settings import load
from service.site import Site, open_site
from workers import traces
from workers.app import SWEEP, TICK, app
from workers.watch import Watch


@cache
def site() -> Site:
    """This process's installation. Opened after the fork: connections must not cross it."""
    return open_site(load())


@cache
def watch() -> Watch:
    """This process's observer of other workers' leases."""
    return Watch(site().settings.lease_s)


_draining: set[str] = set()
_draining_lock = threading.Lock()


@app.task(name=TASKS["build"])  # type: ignore[untyped-decorator]
def drain(job_id: str) -> None:
    """Do what can be done of a build, unless another thread of this process is at it."""
    from workers import build

    with _draining_lock:
        if job_id in _draining:
            return
        _draining.add(job_id)
    try:
        with traces.of_job(site(), job_id):
            build.run(site(), job_id, watch())
    finally:
        _draining.discard(job_id)


@app.task(name=TASKS["train"])  # type: ignore[untyped-decorator]
def train(job_id: str) -> None:
    """Train a student in a child process."""
    from workers import child

    with traces.of_job(site(), job_id):
        child.run(site(), job_id)


@app.task(name=TASKS["compress"])  # type: ignore[untyped-decorator]
def compress(job_id: str) -> None:
    """Run a chain of stages in a child process."""
    from workers import child

    with traces.of_job(site(), job_id):
        child.run(site(), job_id)


@app.task(name=TASKS["report"])  # type: ignore[untyped-decorator]
def report(job_id: str) -> None:
    """Draw a report in a child process."""
    from workers import child

    with traces.of_job(site(), job_id):
        child.run(site(), job_id)


@app.task(name=TASKS["serve"])  # type: ignore[untyped-decorator]
def serve(job_id: str) -> None:
    """Keep a model server up until it is cancelled."""
    from workers import serve as server

    with traces.of_job(site(), job_id):
        server.run(site(), job_id)


@app.task(name=TASKS["batch"])  # type: ignore[untyped-decorator]
def batch(job_id: str) -> None:
    """Ask the requests of a batch."""
    from workers import batch as requests

    with traces.of_job(site(), job_id):
        requests.run(site(), job_id)


@app.task(name=TASKS["recipe"])  # type: ignore[untyped-decorator]
def advance(job_id: str) -> None:
    """Take a recipe as far as it goes now."""
    from service import chain

    with traces.of_job(site(), job_id):
        chain.advance(site(), job_id)


@app.task(name=TICK)  # type: ignore[untyped-decorator]
def tick() -> None:
    """Take back what the dead held, and ring for whatever is stranded."""
    from workers import reconcile

    reconcile.tick(site(), watch())


@app.task(name=SWEEP)  # type: ignore[untyped-decorator]
def sweep() -> None:
    """Delete what is old and needed by nothing."""
    from service import retention
    from service.tables import now

    retention.sweep(site(), now(), dry_run=False)


@worker_init.connect  # type: ignore[untyped-decorator]  # where tasks are threads
@worker_process_init.connect  # type: ignore[untyped-decorator]
def _log(**_: object) -> None:
    settings = load()
    logs.configure(settings)
    spans.start(settings, "worker")
