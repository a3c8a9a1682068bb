"""The doorbell: tells Celery, by task name, that there may be work on a job.

SQL holds the truth; a lost ring costs latency only, for `service.reconcile` rings again.
"""

import logging
import threading
import time
from collections import Counter

from celery import Celery
from kombu.entity import Queue
from kombu.exceptions import ChannelError, OperationalError
from redis.exceptions import RedisError

log = logging.getLogger(__name__)

QUEUES: dict[str, str] = {
    "build": "build",
    "train": "train",
    "compress": "train",
    "report": "train",
    "serve": "serve",
    "batch": "build",
    "recipe": "control",
}
"""Job kind to queue."""

TASKS: dict[str, str] = {
    "build": "workers.tasks.drain",
    "train": "workers.tasks.train",
    "compress": "workers.tasks.compress",
    "report": "workers.tasks.report",
    "serve": "workers.tasks.serve",
    "batch": "workers.tasks.batch",
    "recipe": "workers.tasks.advance",
}
"""Job kind to Celery task; each takes the job's id."""

TRANSPORT_OPTIONS = {
    # One quick attempt: a submit must not wait for a broker that is away.
    "max_retries": 0,
    "interval_start": 0,
    "interval_step": 0,
    "interval_max": 0,
    "socket_connect_timeout": 2,
    "socket_timeout": 5,
}

ANSWER_S = 1.0
"""How long workers are waited for when they are asked what they serve."""
ROLL_LASTS_S = 5.0
"""So long their answers stand: whoever looks more often is told the same."""

UNREACHABLE = (OperationalError, RedisError, OSError)
"""What a broker that is away looks like: through kombu, through redis' client, through a socket."""


class Broker:
    """A producer of doorbells. Connections are opened on the first ring and pooled."""

    def __init__(self, url: str) -> None:
        self._roll: tuple[float, dict[str, int]] | None = None
        self._roll_lock = threading.Lock()
        self._celery = Celery("retort", broker=url)
        self._celery.conf.update(
            task_serializer="json",
            accept_content=["json"],
            task_ignore_result=True,
            broker_transport_options=TRANSPORT_OPTIONS,
            broker_connection_timeout=2,
        )

    def ring(self, kind: str, job_id: str) -> bool:
        """Put a doorbell for `job_id` into the queue of its kind. False, and a line in the log, if
        the broker can't be reached; never raises for that."""
        queue = Queue(QUEUES[kind], routing_key=QUEUES[kind])  # type: ignore[no-untyped-call]
        try:
            with self._celery.producer_pool.acquire(block=True) as producer:
                # Declared anew each time: after a Redis flush a cached publisher would drop
                # messages without a word.
                queue(producer.channel).declare()  # type: ignore[no-untyped-call]
                self._celery.send_task(
                    TASKS[kind], (job_id,), queue=queue, producer=producer, retry=False
                )
        except UNREACHABLE as error:
            log.warning("broker away, %s %s is rung again later: %s", kind, job_id, error)
            return False
        return True

    def workers(self) -> dict[str, int]:
        """Queue -> how many workers answer for it; none if the broker can't be reached. Takes up
        to a second, and is asked anew every few seconds only."""
        with self._roll_lock:
            if self._roll is None or time.monotonic() - self._roll[0] > ROLL_LASTS_S:
                self._roll = time.monotonic(), self._call_roll()
            return dict(self._roll[1])

    def _call_roll(self) -> dict[str, int]:
        try:
            found = self._celery.control.inspect(timeout=ANSWER_S).active_queues()
        except UNREACHABLE:
            return {}
        return Counter(queue["name"] for queues in (found or {}).values() for queue in queues)

    def depth(self, queue: str) -> int | None:
        """How many doorbells wait in a queue; 0 if it doesn't exist yet, None if the broker can't
        be reached."""
        try:
            with self._celery.connection_for_write() as connection:
                channel = connection.default_channel
                return int(channel.queue_declare(queue=queue, passive=True).message_count)
        except ChannelError:
            return 0
        except UNREACHABLE:
            return None
