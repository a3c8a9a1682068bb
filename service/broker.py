"""The doorbell: tells Celery, by task name, that there may be work on a job.

SQL holds the truth; a lost ring costs latency only, for `service.reconcile` rings again.
"""

import logging

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
    "recipe": "control",
}
"""Job kind to queue."""

TASKS: dict[str, str] = {
    "build": "workers.tasks.drain",
    "train": "workers.tasks.train",
    "compress": "workers.tasks.compress",
    "report": "workers.tasks.report",
    "serve": "workers.tasks.serve",
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

UNREACHABLE = (OperationalError, RedisError, OSError)
"""What a broker that is away looks like: through kombu, through redis' client, through a socket."""


class Broker:
    """A producer of doorbells. Connections are opened on the first ring and pooled."""

    def __init__(self, url: str) -> None:
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
