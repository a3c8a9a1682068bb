"""What the embedded stack consists of: each part's command, its sign of life, its settings."""

import http.client
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from service.addresses import ALIVE
from service.settings import Settings
from workers import redis_server
from workers.data_lock import Refused
from workers.part import PartPlan

PORTS_TRIED = 50


def worker_concurrency(settings: Settings) -> dict[str, int]:
    """Queue -> how many tasks its worker runs at once. Jobs on the device wait for a slot, so more
    workers than slots would only wait beside them."""
    return {
        "build": settings.build_concurrency,
        "train": settings.device_slots,
        "serve": settings.device_slots,
        "control": 2,
    }


def redis_plan(settings: Settings, address: Path, environment: dict[str, str]) -> PartPlan:
    """The private Redis. Raises Refused if there is no binary or its directory isn't ours."""
    binary = redis_server.find()
    folder = settings.data_dir / "broker"
    redis_server.private_directory(folder)
    redis_server.private_directory(address.parent)
    return PartPlan(
        name="redis",
        command=tuple(redis_server.command(binary, address, folder)),
        log=_log(settings, "redis"),
        environment=environment,
        ready=lambda: redis_server.answers(address),
        says=f"unix:{address} ({binary.version}{', bundled' if binary.bundled else ''})",
        grace_s=5,
    )


def api_plan(settings: Settings, environment: dict[str, str], note: str) -> PartPlan:
    """The API server, on the host and port of the settings."""
    command = ("-m", "uvicorn", "service.app:app", "--host", settings.host)
    return PartPlan(
        name="api",
        command=(
            *(sys.executable, *command, "--port", str(settings.port), "--no-access-log"),
            # Followers hold their event streams open for ever; they come back by themselves.
            *("--timeout-graceful-shutdown", "2"),
        ),
        log=_log(settings, "api"),
        environment=environment,
        ready=lambda: answers_http(settings.host, settings.port),
        says=settings.api_url + note,
        grace_s=5,
    )


def worker_plan(
    settings: Settings,
    queue: str,
    concurrency: int,
    environment: dict[str, str],
    ready: Callable[[], bool],
) -> PartPlan:
    """A Celery worker for one queue.

    Threads, not forks: what computes is child processes anyway, the worker stays responsive while
    its tasks run for hours, and one SIGTERM reaches every task in it.
    """
    options = ("-Q", queue, "-n", node(queue), "-P", "threads", "-c", str(concurrency))
    quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "INFO")
    return PartPlan(
        name=queue,
        command=(sys.executable, "-m", "celery", "-A", "workers.app", "worker", *options, *quiet),
        log=_log(settings, f"worker-{queue}"),
        environment=environment,
        ready=ready,
        says=f"worker, {concurrency} at once",
        listens=True,
    )


def beat_plan(settings: Settings, environment: dict[str, str]) -> PartPlan:
    """The clock that rings for stranded jobs. Schedules live in SQL: its own file holds nothing
    worth keeping and is known to get corrupted, so each start begins with a new one."""
    schedule = settings.data_dir / "broker" / "beat"
    schedule.parent.mkdir(parents=True, exist_ok=True)
    for stale in schedule.parent.glob("beat*"):
        stale.unlink()
    command = ("-m", "celery", "-A", "workers.app", "beat", "--loglevel", "INFO", "--pidfile=")
    return PartPlan(
        name="beat",
        command=(sys.executable, *command, "--schedule", str(schedule)),
        log=_log(settings, "beat"),
        environment=environment,
        ready=lambda: True,
        says="clock",
        grace_s=1,
    )


def child_environment(settings: Settings) -> dict[str, str]:
    """What the parts find in their environment: the same installation, spelled out."""
    return os.environ | {
        "RETORT_DATA_DIR": str(settings.data_dir),
        "RETORT_DATABASE_URL": settings.database_url,
        "RETORT_BROKER_URL": settings.broker_url,
        "RETORT_ARTIFACT_ROOT": str(settings.artifact_root),
        "RETORT_HOST": settings.host,
        "RETORT_PORT": str(settings.port),
        "RETORT_API_URL": settings.api_url,
        "PYTHONUNBUFFERED": "1",
    }


def free_port(host: str, wanted: int) -> int:
    """`wanted` if nobody listens there, else the next free one above; 0 takes any. Raises Refused
    if the address can't be used at all."""
    for port in [wanted, *range(wanted + 1, min(wanted + PORTS_TRIED, 65536))] if wanted else [0]:
        try:
            with socket.create_server((host, port)) as listener:
                return int(listener.getsockname()[1])
        except PermissionError as error:
            raise Refused(f"port {port} needs privileges; choose one from 1024 on.") from error
        except socket.gaierror as error:
            raise Refused(f"{host} is no address of this machine: {error.strerror}") from error
        except OSError:
            continue
    raise Refused(f"no free port from {wanted} on at {host}; choose another with --port.")


def node(queue: str) -> str:
    """The worker's name among all that share a broker."""
    return f"{queue}@{socket.gethostname()}-{os.getpid()}"


def answers_http(host: str, port: int) -> bool:
    """Whether an HTTP server answers there, whatever it says."""
    connection = http.client.HTTPConnection(_reachable(host), port, timeout=2)
    try:
        connection.request("GET", ALIVE)
        return connection.getresponse().status < 500
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _reachable(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def _log(settings: Settings, name: str) -> Path:
    return settings.data_dir / "logs" / f"{name}.log"
