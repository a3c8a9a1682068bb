"""Teachers: separate servers behind the OpenAI-compatible API, registered by name and probed."""

import hashlib
import os
from pathlib import Path

from pydantic import (
    Field,
    HttpUrl,
    SecretStr,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)
from sqlalchemy import select
from sqlalchemy.orm import Session

from prompts.record import Frozen
from service.probe import Probe, ask_teacher
from service.problems import Problem, not_found
from service.settings import Settings, secret
from service.tables import Teacher, now
from service.vault import SealedElsewhereError, unseal

WHOLE_WEIGHTS_BYTES = 512 * 2**20
"""Weights up to this size are hashed whole; of larger ones names, sizes and times."""

_url = TypeAdapter(HttpUrl)


class Registration(Frozen):
    """A teacher as somebody registers it."""

    name: str = Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """What builds call it by."""
    base_url: str
    """Of its OpenAI-compatible API, such as http://127.0.0.1:8000/v1."""
    served_model: str = Field(min_length=1)
    """The model's name on that server: one of its /v1/models."""
    api_key_env: str | None = Field(None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """Name of the environment variable, of the API and of the workers, that holds the key."""
    api_key: SecretStr | None = Field(None, min_length=1)
    """The key itself, stored encrypted and never shown again; in place of `api_key_env`."""
    licence: str | None = None
    """What the teacher's licence says about training on its output; copied into dataset cards."""
    model: str | None = None
    """Directory of its weights and tokenizer, where it is at hand."""
    max_in_flight: int | None = Field(None, ge=1, le=65_536)
    """Most requests under way at once, over all jobs and workers; None: each job's own limit."""
    gpus: int | None = Field(None, ge=1)
    """How many its server has: what a budget of GPU seconds is counted by."""
    price_prompt: float | None = Field(None, ge=0)
    """Of a million prompt tokens, in any currency: what a budget's price is counted by."""
    price_completion: float | None = Field(None, ge=0)
    """Of a million completion tokens."""

    @model_validator(mode="after")
    def _has_one_key(self) -> "Registration":
        if self.api_key is not None and self.api_key_env is not None:
            raise ValueError("give either `api_key`, or `api_key_env`")
        return self

    @field_validator("base_url")
    @classmethod
    def _ends_in_v1(cls, value: str) -> str:
        try:
            _url.validate_python(value)
        except ValidationError as error:
            raise ValueError("must be a URL such as http://127.0.0.1:8000/v1") from error
        trimmed = value.rstrip("/")
        return trimmed if trimmed.endswith("/v1") else f"{trimmed}/v1"


def register(
    session: Session,
    registration: Registration,
    probe: Probe,
    serve_job_id: str | None = None,
    api_key_sealed: str | None = None,
) -> Teacher:
    """Insert a teacher, or replace the one of that name, key and all. The caller commits."""
    teacher = session.get(Teacher, registration.name) or Teacher(name=registration.name)
    teacher.base_url = registration.base_url
    teacher.served_model = registration.served_model
    teacher.api_key_env = registration.api_key_env
    teacher.api_key_sealed = api_key_sealed
    teacher.licence = registration.licence
    teacher.model = registration.model
    teacher.serve_job_id = serve_job_id
    teacher.max_in_flight, teacher.gpus = registration.max_in_flight, registration.gpus
    teacher.price_prompt = registration.price_prompt
    teacher.price_completion = registration.price_completion
    note(teacher, probe)
    session.add(teacher)
    session.flush()
    return teacher


async def probe(registration: Registration) -> Probe:
    """Ask the server what it is and can do: its models, one token, its limits. Costs one token and
    a few refused requests. Raises a problem that says what is wrong and what to do."""
    found = await ask_teacher(registration.base_url, registration.served_model, _key(registration))
    directory = Path(registration.model).expanduser() if registration.model else None
    if directory is None or not directory.is_dir():
        return found
    return found.model_copy(
        update={
            "tokenizer_sha256": tokenizer_digest(directory),
            "revision": weights_digest(directory) or found.revision,
        }
    )


async def probe_again(registration: Registration) -> Probe:
    """Like `probe`, but what is wrong comes back as a probe that is not `ok`."""
    try:
        return await probe(registration)
    except Problem as problem:
        return Probe(ok=False, error=problem.detail)


def note(teacher: Teacher, probe: Probe) -> None:
    """Put a probe's result on a teacher's row."""
    teacher.probe = probe.model_dump(mode="json")
    teacher.probed_at = now()


def registration_of(teacher: Teacher, settings: Settings) -> Registration:
    """A row as it was registered, its stored key opened. Raises a 422 problem if it can't be."""
    sealed = teacher.api_key_sealed
    try:
        key = None if sealed is None else SecretStr(unseal(settings, sealed))
    except SealedElsewhereError as error:
        raise Problem(
            422, "teacher-key-missing", "The teacher's key is lost", str(error)
        ) from error
    return Registration(
        name=teacher.name,
        base_url=teacher.base_url,
        served_model=teacher.served_model,
        api_key_env=teacher.api_key_env,
        api_key=key,
        licence=teacher.licence,
        model=teacher.model,
        max_in_flight=teacher.max_in_flight,
        gpus=teacher.gpus,
        price_prompt=teacher.price_prompt,
        price_completion=teacher.price_completion,
    )


def get(session: Session, name: str) -> Teacher:
    """A teacher by name. Raises a 404 problem that lists near names."""
    teacher = session.get(Teacher, name)
    if teacher is None:
        raise not_found("teacher", name, [other.name for other in listing(session)])
    return teacher


def listing(session: Session, after: str | None = None, limit: int | None = None) -> list[Teacher]:
    """Teachers, by name; `after` is the last name of the page before this one."""
    query = select(Teacher).order_by(Teacher.name).limit(limit)
    return list(session.scalars(query.where(Teacher.name > after) if after else query))


def delete(session: Session, name: str) -> None:
    """Forget a teacher; datasets that it made keep its name. Raises a 404 problem."""
    session.delete(get(session, name))


def tokenizer_digest(directory: Path) -> str | None:
    """SHA-256 of a model directory's tokenizer.json; None if it has none."""
    tokenizer = directory / "tokenizer.json"
    if not tokenizer.is_file():
        return None
    return hashlib.sha256(tokenizer.read_bytes()).hexdigest()


def weights_digest(directory: Path) -> str | None:
    """A digest that changes when a model directory's weights do; None if there are none."""
    files = sorted(directory.glob("*.safetensors"))
    if not files:
        return None
    digest = hashlib.sha256()
    whole = sum(file.stat().st_size for file in files) <= WHOLE_WEIGHTS_BYTES
    for file in files:
        digest.update(file.name.encode())
        digest.update(file.read_bytes() if whole else _stamp(file.stat()))
    return f"sha256:{digest.hexdigest()}"


def _stamp(stat: os.stat_result) -> bytes:
    return f"{stat.st_size} {stat.st_mtime_ns}".encode()


def _key(registration: Registration) -> str | None:
    if registration.api_key is not None:
        return registration.api_key.get_secret_value()
    variable = registration.api_key_env
    if variable is None:
        return None
    key = secret(variable)
    if key is None:
        raise Problem(
            422,
            "teacher-key-missing",
            "The teacher's key is missing",
            f"The environment variable {variable} is not set where the API runs. Set it for the "
            "API and the workers, and start them again.",
        )
    return key
