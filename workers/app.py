"""The Celery app: four queues of doorbells, and one beat that ticks.

    celery -A workers.app worker -Q build -c 2
    celery -A workers.app beat

Messages are acknowledged early and carry a job's id, nothing else: what recovers work is the
lease in SQL (`workers/lease.py`), never redelivery. So no results, no ETA, no countdown, no chord.
"""

from celery import Celery
from celery.signals import import_modules
from kombu.entity import Queue

from service.broker import QUEUES, TASKS
from service.settings import Settings, load

TICK = "workers.tasks.tick"
SWEEP = "workers.tasks.sweep"
TICK_QUEUE = "control"
SWEEP_S = 3600.0


def make_app(settings: Settings) -> Celery:
    """The app of an installation; connects to nothing yet."""
    app = Celery("retort", broker=settings.broker_url, include=["workers.tasks"])
    names = sorted({*QUEUES.values(), TICK_QUEUE})
    routes = {task: {"queue": QUEUES[kind]} for kind, task in TASKS.items()}
    app.conf.update(
        task_queues=[Queue(name, routing_key=name) for name in names],  # type: ignore[no-untyped-call]
        task_default_queue=TICK_QUEUE,
        task_routes=routes | {each: {"queue": TICK_QUEUE} for each in (TICK, SWEEP)},
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_acks_late=False,
        task_reject_on_worker_lost=False,
        worker_prefetch_multiplier=1,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        worker_proc_alive_timeout=60.0,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={"visibility_timeout": 300, "unacked_restore_throttle": 1},
        # Whatever this file holds may be deleted: what is due is decided from SQL, at each tick.
        beat_schedule_filename=str(settings.data_dir / "beat-schedule"),
        beat_schedule={
            "tick": {"task": TICK, "schedule": tick_s(settings)},
            "sweep": {"task": SWEEP, "schedule": SWEEP_S},
        },
        beat_max_loop_interval=tick_s(settings),
    )
    return app


def tick_s(settings: Settings) -> float:
    """Seconds between ticks: three looks in a lease, so that a dead worker is noticed in time."""
    return min(settings.reconcile_s, settings.lease_s / 3)


@import_modules.connect  # type: ignore[untyped-decorator]  # as a worker or the beat starts
def _make_data_dir(**_: object) -> None:
    """A beat on a host of its own finds no directory for its schedule else."""
    load().data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)


app = make_app(load())
