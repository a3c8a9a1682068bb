"""/v1/models: what can be asked (teachers, served students) and what was trained."""

from fastapi import APIRouter
from sqlalchemy import select

from service import teachers
from service.openai.errors import ERRORS
from service.openai.objects import Object, seconds
from service.problems import Problem
from service.routes.deps import TheSite
from service.tables import Artifact, Teacher

router = APIRouter(prefix="/models", tags=["models"], responses=ERRORS)

MOST_SHOWN = 1000


@router.get("")
def list_models(site: TheSite) -> Object:
    """Teachers by name, then trained models, newest first."""
    trained = select(Artifact).where(Artifact.kind == "model").order_by(Artifact.id.desc())
    with site.sessions.reading() as session:
        found = [_teacher(each) for each in teachers.listing(session)]
        found += [_model(each) for each in session.scalars(trained.limit(MOST_SHOWN))]
    return {"object": "list", "data": found}


@router.get("/{name:path}")
def show_model(site: TheSite, name: str) -> Object:
    """A teacher, or a trained model by id, name or name@version."""
    with site.sessions.reading() as session:
        teacher = session.get(Teacher, name)
        if teacher is not None:
            return _teacher(teacher)
        try:
            return _model(site.store.resolve(session, name, "model"))
        except Problem as problem:
            raise unknown(name, problem.detail) from problem


def unknown(name: str, detail: str) -> Problem:
    """404, under the code that clients know."""
    return Problem(404, "model-not-found", "No such model", detail or f"There is no {name!r}.")


def _teacher(teacher: Teacher) -> Object:
    created = seconds(teacher.created_at)
    return {"id": teacher.name, "object": "model", "created": created, "owned_by": "teacher"}


def _model(model: Artifact) -> Object:
    created = seconds(model.created_at)
    return {"id": model.id, "object": "model", "created": created, "owned_by": "retort"}
