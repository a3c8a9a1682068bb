"""Settings: the one place that reads the environment, as RETORT_<NAME>; see docs/settings.md."""

import hashlib
import os
import re
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

BUCKET_URL = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[\w.=-]+)*/?")
UNIX_SOCKET_PATH_LIMIT = 100
"""Linux takes 107 bytes; the rest is room for a server's own suffix."""


def load() -> "Settings":
    """The settings as the environment has them now. Raises pydantic's ValidationError."""
    return Settings()


def secret(variable: str) -> str | None:
    """The value of an environment variable that a teacher's registration names; None if unset."""
    return os.environ.get(variable) or None


def _absolute(path: Path) -> Path:
    return path.expanduser().absolute()


AbsolutePath = Annotated[Path, AfterValidator(_absolute)]


def _root(value: object) -> object:
    """A directory, or s3://bucket/prefix."""
    if isinstance(value, str) and "://" in value:
        if BUCKET_URL.fullmatch(value) is None:
            raise ValueError(f"{value!r} is neither a directory nor s3://bucket/prefix")
        if find_spec("s3fs") is None:
            raise ValueError("s3:// needs s3fs: pip install 'retort-distill[s3]'")
        return value.rstrip("/")
    return _absolute(Path(value)) if isinstance(value, str | Path) else value


ArtifactRoot = Annotated[Path | str, BeforeValidator(_root)]


def _default_database(known: dict[str, Any]) -> str:
    return f"sqlite:///{known['data_dir'] / 'retort.db'}"


def _default_broker(known: dict[str, Any]) -> str:
    return f"redis+socket://{broker_socket(known['data_dir'])}"


def broker_socket(data_dir: Path) -> Path:
    """Where the private Redis listens: in the data directory, or, where that path is too long for
    a unix socket, in a directory of its own among the temporary files."""
    inside = data_dir / "broker" / "redis.sock"
    if len(os.fsencode(inside)) <= UNIX_SOCKET_PATH_LIMIT:
        return inside
    digest = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"retort-{os.getuid()}-{digest}" / "redis.sock"


def _default_artifacts(known: dict[str, Any]) -> Path:
    root: Path = known["data_dir"] / "artifacts"
    return root


def _default_api_url(known: dict[str, Any]) -> str:
    return f"http://{known['host']}:{known['port']}"


def _default_vllm_python() -> Path:
    beside_the_code = Path(__file__).resolve().parent.parent
    for folder in (beside_the_code, Path.cwd()):
        python = folder / ".venv-vllm" / "bin" / "python"
        if python.exists():
            return python
    return Path(sys.executable)


class Settings(BaseSettings):
    """How this installation is laid out. Read once at start, passed on as a value."""

    model_config = SettingsConfigDict(
        env_prefix="RETORT_", frozen=True, extra="ignore", env_parse_none_str="none"
    )

    data_dir: AbsolutePath = Field(default=Path(".retort"), validate_default=True)
    """Where everything lives that has no URL of its own."""
    database_url: str = Field(default_factory=_default_database)
    """SQLAlchemy URL; SQLite in the data directory by default, or postgresql://…"""
    broker_url: str = Field(default_factory=_default_broker)
    """Celery broker URL; a private Redis on a unix socket by default, or redis://…"""
    artifact_root: ArtifactRoot = Field(default_factory=_default_artifacts)
    """Datasets, models, reports and uploads: a directory that every worker sees under the same
    path, or s3://bucket/prefix."""
    host: str = "127.0.0.1"
    """Address that the API listens on."""
    port: int = Field(default=8300, ge=0, le=65535)
    """Port that the API listens on; 0 takes a free one."""
    api_url: str = Field(default_factory=_default_api_url)
    """Where the command line finds the API."""
    api_key: SecretStr | None = None
    """The key that the command line shows the API."""
    secret: SecretStr | None = None
    """Signs sessions and login links; by default a file of random bits in the data directory."""
    lease_s: float = Field(default=15.0, gt=0)
    """A worker whose heartbeat stands still for so long is taken for dead."""
    device_slots: int = Field(default=1, ge=1)
    """How many jobs of train, compress, serve and report may hold the device at once."""
    train_processes: int = Field(1, ge=1)
    """Processes of one training, started by `accelerate launch`: one per GPU, say."""
    build_concurrency: int = Field(2, ge=1, le=64)
    """How many build jobs `retort up` works on at once, each with its own window of requests."""
    vllm_python: AbsolutePath = Field(default_factory=_default_vllm_python)
    """Python of the environment that holds vLLM."""
    serve_host: str = Field(default="127.0.0.1", pattern=r"^[A-Za-z0-9]([A-Za-z0-9.-]*)$")
    """Name or IPv4 address by which other hosts reach the models that this one serves."""
    min_free_bytes: int = Field(default=256 * 2**20, ge=0)
    """Uploads and publications that would leave less than this on disk are refused."""
    upload_limit_bytes: int = Field(default=50 * 2**30, ge=1)
    """Largest file that the API takes."""
    allow_server_paths: bool = True
    """May jobs and imports name directories of the server? Set it to false where users are not
    trusted with the server's files."""
    tracing: bool = False
    """Carry W3C trace context from requests to jobs, workers and teachers?"""
    traces_url: str | None = Field(None, pattern=r"^https?://\S+$")
    """Where an OpenTelemetry collector takes spans over HTTP, with `tracing`."""
    log_format: Literal["plain", "json"] = "plain"
    """Lines for people, or a JSON object a line with the ids of jobs."""
    allow_python_verifiers: bool = False
    """May a build name a Python function as its verifier? The workers import and run it: say true
    only where everyone who may submit jobs may also run code on the workers."""
    reconcile_s: float = Field(default=10.0, gt=0)
    """How often doorbells are rung again for jobs that may have missed theirs."""
    request_timeout_s: float = Field(default=600.0, gt=0)
    """How long one request to a teacher may take, its wait in the teacher's queue included."""
    teacher_patience_s: float = Field(default=60.0, gt=0)
    """A teacher that answers nothing for so long pauses the builds that ask it; they go on when it
    answers again."""
    keep_ledgers_days: float | None = Field(default=90.0, ge=0)
    """How long what was paid for outlives its job: a build that failed or was cancelled is taken up
    from it when it is submitted again. Unset by `none`: for ever."""
    keep_checkpoints_days: float | None = Field(default=30.0, ge=0)
    """How long the checkpoints of a job that ended without a model are kept."""
    keep_logs_days: float | None = Field(default=90.0, ge=0)
    """How long the work folder of an ended job is kept: the logs of its processes, its specs."""
    keep_cache_days: float | None = Field(default=None, ge=0)
    """How long a cached completion is kept; by default for ever."""
    keep_files_days: float | None = Field(default=None, ge=0)
    """How long an uploaded file, or a batch's, is kept that nothing refers to; by default for
    ever."""
    keep_mirror_days: float | None = Field(default=30.0, ge=0)
    """How long a host keeps what it read of an artifact in a bucket."""
    yield_s: float = Field(default=60.0, gt=0)
    """After so long a worker leaves its build to work on one that nobody works on."""
