"""This worker was asked to stop: long tasks put their work down instead of holding it up."""

import threading

from celery.signals import worker_shutting_down

requested = threading.Event()
"""Set once, when the worker begins to shut down. Tasks look at it while they wait."""


def _on_shutdown(**_: object) -> None:
    requested.set()


worker_shutting_down.connect(_on_shutdown)
