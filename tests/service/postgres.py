"""A private PostgreSQL cluster in a temporary directory, on a unix socket only."""

import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

BINARIES = Path("/usr/lib/postgresql")


@dataclass(frozen=True)
class PrivateCluster:
    """A running cluster; each test takes a database of its own."""

    folder: Path

    @staticmethod
    @contextmanager
    def started() -> Iterator["PrivateCluster"]:
        """Start one, stop and delete it afterwards. Skips where PostgreSQL isn't installed."""
        found = sorted(BINARIES.glob("*/bin/initdb"))
        if not found:
            pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
        folder = Path(tempfile.mkdtemp(prefix="retort-pg-"))
        become = _become(folder)
        binaries, data = found[-1].parent, folder / "data"
        options = f"-k {folder} -c listen_addresses='' -c fsync=off"
        try:
            _run(*become, str(found[-1]), "-D", str(data), "-U", "retort", "-A", "trust")
            control = (*become, str(binaries / "pg_ctl"), "-D", str(data), "-w")
            _run(*control, "-o", options, "-l", str(folder / "log"), "start")
            try:
                yield PrivateCluster(folder)
            finally:
                _run(*control, "-m", "immediate", "stop")
        finally:
            shutil.rmtree(folder)

    def new_database(self) -> str:
        """URL of an empty database: a schema of its own, which is quicker to make."""
        name = f"retort_{uuid.uuid4().hex}"
        with psycopg.connect(
            host=str(self.folder), user="retort", dbname="postgres", autocommit=True
        ) as connection:
            connection.execute(f"CREATE SCHEMA {name}".encode())
        options = f"options=-csearch_path%3D{name}"
        return f"postgresql://retort@/postgres?host={self.folder}&{options}"


def _become(folder: Path) -> tuple[str, ...]:
    """PostgreSQL refuses to run as root: then another user runs it."""
    if os.getuid() != 0:
        return ()
    user = pwd.getpwnam("postgres")
    os.chown(folder, user.pw_uid, user.pw_gid)
    return ("setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups")


def _run(*command: str) -> None:
    subprocess.run(
        command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/"
    )
