"""/v1/fine_tuning/jobs: train jobs, supervised or by a distillation method."""

from typing import Annotated, Any

from fastapi import APIRouter, Body
from pydantic import Field, ValidationError
from sqlalchemy import select

from prompts.record import Frozen
from service import jobs, pausing
from service.errors import faults
from service.openai.errors import ERRORS
from service.openai.objects import TUNING, Limit, Object, inside, listed
from service.openai.training_files import dataset_of
from service.openai.trainings import (
    METHODS,
    MULTIPLIER,
    checkpoints,
    event_object,
    tuning_object,
)
from service.problems import Fault, bad_input, conflict, not_found
from service.routes.deps import TheCaller, TheSite
from service.site import Site
from service.spec import TrainJob, job_spec
from service.tables import FINISHED, Event, Job
from trainer.spec import Optimization

router = APIRouter(prefix="/fine_tuning/jobs", tags=["fine-tuning"], responses=ERRORS)

NOT_HERE = {
    "dpo": "preference pairs are not trained on here",
    "reinforcement": "graders are not run here",
}
REFUSED = {
    "validation_file": "rows are split by a hash of their conversation; there is no file for it",
    "integrations": "figures are in the job's events",
    "metadata": "training jobs keep none; `suffix` names the model",
}
HYPERPARAMETERS = {"n_epochs": "epochs", "batch_size": "batch_size"}
"""OpenAI's hyperparameters that are fields of `optimization`, whose own names are taken too."""
SAID = {
    "method": "`type`",
    "student": "`model`",
    "dataset": "`training_file`",
    "name": "`suffix`",
    "optimization": "`hyperparameters`",
}
"""Fields of a training that a request has in places of their own."""
MOST = 1e100
"""Of a multiplier: whole numbers beyond what a float holds come in JSON too."""
EXAMPLES: dict[str, Any] = {
    "supervised": {
        "value": {"model": "examples/demo/models/student", "training_file": "file-2m556dr78jbs"}
    },
    "distillation": {
        "value": {
            "model": "examples/demo/models/student",
            "training_file": "file-2m556dr78jbs",
            "method": {
                "type": "forward_kl",
                "forward_kl": {
                    "teacher": "examples/demo/models/teacher",
                    "hyperparameters": {"n_epochs": 2},
                },
            },
        }
    },
}


class TuningRequest(Frozen):
    """A fine-tuning job as OpenAI's clients ask for it."""

    model: str = Field(min_length=1)
    """The student to start from: model id, name, directory of the server or hub name."""
    training_file: str = Field(min_length=1)
    suffix: str | None = Field(None, min_length=1, max_length=64)
    """What the model is called."""
    seed: int | None = None
    method: dict[str, Any] | None = None
    """`type`, and under the type's name its `hyperparameters` and own fields."""
    hyperparameters: dict[str, Any] | None = None
    """Those of the supervised method, in the older form."""
    validation_file: str | None = None
    integrations: list[Any] | None = None
    metadata: dict[str, Any] | None = None


@router.post("")
def create_tuning(
    site: TheSite,
    caller: TheCaller,
    wanted: Annotated[TuningRequest, Body(openapi_examples=EXAMPLES)],
) -> Object:
    """Queue a training. Hyperparameters are mapped to the trainer's, or refused by name."""
    _require_nothing_refused(wanted)
    job_fields, kind = train_fields(wanted)
    _parsed(job_fields, kind)
    with site.sessions.reading() as session:
        site.store.name_model(session, wanted.model)
    dataset = dataset_of(site, wanted.training_file)
    job_fields["train"]["dataset"] = dataset.id
    return _shown(site, jobs.submit(site, _parsed(job_fields, kind), by=caller.key_id))


@router.get("")
def list_tunings(site: TheSite, after: str | None = None, limit: Limit = 20) -> Object:
    """Trainings, newest first; those submitted elsewhere too."""
    before = inside(after, TUNING) if after is not None else None
    with site.sessions.reading() as session:
        found = jobs.listing(session, kind="train", before=before, limit=limit + 1)
        return listed([tuning_object(session, job) for job in found], limit)


@router.get("/{tuning_id}")
def show_tuning(site: TheSite, tuning_id: str) -> Object:
    """A training and how far it is."""
    return _shown(site, _tuning(site, tuning_id))


@router.post("/{tuning_id}/cancel")
def cancel_tuning(site: TheSite, tuning_id: str) -> Object:
    """Stop a training."""
    job = _tuning(site, tuning_id)
    if job.state in FINISHED:
        raise conflict("The job has ended", f"{tuning_id} is {job.state} already.")
    return _shown(site, jobs.cancel(site, job.id))


@router.post("/{tuning_id}/pause")
def pause_tuning(site: TheSite, tuning_id: str) -> Object:
    """Let a training wait until it is resumed. One that runs writes a checkpoint first: it is
    `running` until that is done."""
    return _shown(site, pausing.pause(site, _tuning(site, tuning_id).id))


@router.post("/{tuning_id}/resume")
def resume_tuning(site: TheSite, tuning_id: str) -> Object:
    """Let a paused training go on, from its last checkpoint."""
    return _shown(site, pausing.resume(site, _tuning(site, tuning_id).id))


@router.get("/{tuning_id}/events")
def list_events(
    site: TheSite, tuning_id: str, after: str | None = None, limit: Limit = 20
) -> Object:
    """What happened, newest first."""
    job = _tuning(site, tuning_id)
    query = select(Event).where(Event.job_id == job.id).order_by(Event.id.desc()).limit(limit + 1)
    if after is not None:
        query = query.where(Event.id < _number(after, "ftevent-"))
    with site.sessions.reading() as session:
        return listed([event_object(event) for event in session.scalars(query)], limit)


@router.get("/{tuning_id}/checkpoints")
def list_checkpoints(
    site: TheSite, tuning_id: str, after: str | None = None, limit: Limit = 10
) -> Object:
    """The checkpoints that were written, newest first; once the training has succeeded, its model
    is the first. Others resume a training; they are not published as models."""
    job = _tuning(site, tuning_id)
    with site.sessions.reading() as session:
        found = checkpoints(session, job)
    if after is not None:
        behind = [place for place, one in enumerate(found, 1) if one["id"] == after]
        found = found[behind[0] :] if behind else []
    return listed(found[: limit + 1], limit)


def train_fields(wanted: TuningRequest) -> tuple[dict[str, Any], str]:
    """A train job's fields, its dataset left open, and OpenAI's name of the method. Raises a 422
    problem for a method or a hyperparameter that isn't known here."""
    method = dict(wanted.method or {"type": "supervised"})
    kind = str(method.pop("type", "supervised"))
    if kind in NOT_HERE:
        raise bad_input([Fault("method.type", f"{kind}: {NOT_HERE[kind]}")])
    own = _object(method.pop(kind, None), f"method.{kind}")
    if method:
        raise bad_input([Fault(f"method.{next(iter(method))}", f"doesn't go with type {kind!r}")])
    inner = _object(own.pop("hyperparameters", None), f"method.{kind}.hyperparameters")
    given = (wanted.hyperparameters or {}) | inner
    if twice := [name for name in SAID if name in own]:
        raise bad_input([Fault(f"method.{kind}.{twice[0]}", f"say it as {SAID[twice[0]]}")])
    seed = {} if wanted.seed is None else {"seed": wanted.seed}
    train = {
        "method": METHODS.get(kind, kind),
        "student": wanted.model,
        "name": wanted.suffix or "fine-tuned",
        "optimization": optimization(given) | seed,
    }
    return {"kind": "train", "train": train | own}, kind


def _object(given: Any, location: str) -> dict[str, Any]:
    if not isinstance(given, dict | None):
        raise bad_input([Fault(location, "must be an object")])
    return dict(given or {})


def optimization(hyperparameters: dict[str, Any]) -> dict[str, Any]:
    """Hyperparameters under the trainer's names; `auto` leaves its default."""
    given = {name: value for name, value in hyperparameters.items() if value != "auto"}
    fields = {HYPERPARAMETERS.get(name, name): value for name, value in given.items()}
    multiplier = fields.pop(MULTIPLIER, None)
    if multiplier is not None:
        number = isinstance(multiplier, int | float) and not isinstance(multiplier, bool)
        if not number or not 0 < multiplier < MOST:
            raise bad_input([Fault(f"hyperparameters.{MULTIPLIER}", "must be a number above 0")])
        fields["learning_rate"] = Optimization().learning_rate * multiplier
    unknown = sorted(fields.keys() - Optimization.model_fields.keys())
    if unknown:
        known = ", ".join([*HYPERPARAMETERS, MULTIPLIER, *Optimization.model_fields])
        message = f"is not known here; known are {known}"
        raise bad_input([Fault(f"hyperparameters.{unknown[0]}", message)])
    return fields


def _require_nothing_refused(wanted: TuningRequest) -> None:
    given = wanted.model_dump(exclude_none=True)
    found = [Fault(name, why) for name, why in REFUSED.items() if given.get(name)]
    if found:
        raise bad_input(found)


def _parsed(fields: dict[str, Any], kind: str) -> TrainJob:
    try:
        job = job_spec.validate_python(fields)
    except ValidationError as error:
        placed = [one | {"loc": ("body", *one["loc"])} for one in error.errors()]
        found = [
            Fault(_given_as(one.location, kind), one.message) for one in faults(placed, fields)
        ]
        raise bad_input(found) from error
    assert isinstance(job, TrainJob)
    return job


def _given_as(location: str, kind: str) -> str:
    """Where a field of the train job stood in the request."""
    field = location.removeprefix("train").removeprefix(".")
    if not field:
        return "method.type"
    if field.startswith("optimization."):
        ours = field.removeprefix("optimization.")
        names = {inner: name for name, inner in HYPERPARAMETERS.items()}
        return f"hyperparameters.{names.get(ours, ours)}"
    return f"method.{kind}.{field}"


def _number(identity: str, prefix: str) -> int:
    text = identity.removeprefix(prefix)
    return min(int(text), 2**31 - 1) if text.isascii() and text.isdigit() else 0


def _shown(site: Site, job: Job) -> Object:
    with site.sessions.reading() as session:
        return tuning_object(session, job)


def _tuning(site: Site, tuning_id: str) -> Job:
    with site.sessions.reading() as session:
        job = session.get(Job, inside(tuning_id, TUNING))
    if job is None or job.kind != "train" or not tuning_id.startswith(TUNING):
        raise not_found("fine-tuning job", tuning_id, [])
    return job
