"""What a spec's references mean on this machine: paths for the trainer, ids for the lineage."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from prompts.record import Frozen
from service import teachers
from service.problems import Problem
from service.store import ArtifactKind, Store
from service.tables import Artifact
from trainer.spec import CompressSpec, EvalSpec, MiniLLM, ServedKL, TrainSpec, WithTeacher


@dataclass
class Inputs:
    """Resolves references and remembers which artifacts were used. Raises problems."""

    store: Store
    session: Session
    used: list[str] = field(default_factory=list)

    def model(self, reference: str) -> str:
        """A directory, or a hub name as it came."""
        self._note(reference, "model")
        return self.store.locate_model(self.session, reference)

    def dataset(self, reference: str) -> str:
        """A dataset's directory."""
        return self._directory(reference, "dataset")

    def file(self, reference: str) -> str:
        """An uploaded file, or a path of the server."""
        return self._directory(reference, "file")

    def _directory(self, reference: str, kind: ArtifactKind) -> str:
        if Path(reference).is_absolute() and Path(reference).exists():
            return reference
        artifact = self.store.resolve(self.session, reference, kind)
        self._note(artifact.id, kind)
        self.store.let_go(self.session)
        return str(self.store.path(artifact))

    def _note(self, reference: str, kind: ArtifactKind) -> None:
        found = self.session.get(Artifact, reference)
        if found is None and kind == "model" and "/" not in reference:
            try:
                found = self.store.resolve(self.session, reference, kind)
            except Problem:
                return  # A directory or a hub name: nothing of ours.
        if found is not None and found.id not in self.used:
            self.used.append(found.id)


def train_paths(spec: TrainSpec, inputs: Inputs) -> TrainSpec:
    """The spec with paths in place of ids."""
    changed: dict[str, Any] = {"student": inputs.model(spec.student)}
    if spec.dataset is not None:
        changed["dataset"] = inputs.dataset(spec.dataset)
    if isinstance(spec, WithTeacher):
        changed["teacher"] = inputs.model(spec.teacher)
    if isinstance(spec, ServedKL):
        changed |= _served(spec, inputs.session)
    if isinstance(spec, MiniLLM) and spec.text is not None:
        changed["text"] = inputs.file(spec.text)
    return spec.model_copy(update=changed)


def _served(spec: ServedKL, session: Session) -> dict[str, Any]:
    """Where the named teacher is asked, as it is registered, whatever else the spec says."""
    teacher = teachers.get(session, spec.teacher)
    most = min(spec.in_flight, teacher.max_in_flight or spec.in_flight)
    return {
        "teacher": teacher.base_url,
        "served_model": teacher.served_model,
        "api_key_env": teacher.api_key_env,
        "in_flight": most,
    }


def compress_paths(spec: CompressSpec, inputs: Inputs) -> CompressSpec:
    """The spec with paths in place of ids."""
    changed: dict[str, Any] = {}
    if spec.model is not None:
        changed["model"] = inputs.model(spec.model)
    if spec.dataset is not None:
        changed["dataset"] = inputs.dataset(spec.dataset)
    if spec.evaluate is not None:
        changed["evaluate"] = eval_paths(spec.evaluate, inputs)
    if spec.teacher is not None:
        changed["teacher"] = inputs.model(spec.teacher)
    return spec.model_copy(update=changed)


def eval_paths(spec: EvalSpec, inputs: Inputs) -> EvalSpec:
    """The spec with a path in place of an id."""
    return spec.model_copy(update={"data": inputs.file(spec.data)})


def write_spec(path: Path, spec: Frozen) -> Path:
    """A spec as the trainer reads it."""
    return write_json(path, spec.model_dump(mode="json"))


def write_json(path: Path, data: Any) -> Path:
    """JSON in a file that is there whole or not at all."""
    draft = path.with_name(f".{path.name}")
    draft.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    draft.replace(path)
    return path


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object from a file; None if there is none."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return data if isinstance(data, dict) else None
