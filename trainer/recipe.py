"""The chain from a dataset on, without the service: train, compress, measure, report."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import TypeAdapter, ValidationError, model_validator

from prompts.record import Frozen
from prompts.yaml_text import read_yaml
from trainer.compress.report import StageReport
from trainer.errors import BadInput
from trainer.events import Emit
from trainer.measurement import Measurement
from trainer.report.chain import Chain, ModelRow, Samples, Step, Training, Validation
from trainer.report.chain import Recipe as RecipeFacts
from trainer.spec import PACKED, CompressSpec, EvalSpec, TrainSpec


class Recipe(Frozen):
    """A recipe without its build; paths in place of ids. The fields are the service's."""

    kind: Literal["recipe"] = "recipe"
    version: Literal[1] = 1
    name: str = "recipe"
    train: TrainSpec | None = None
    compress: CompressSpec | None = None
    evaluate: EvalSpec | None = None
    report: bool = True

    @model_validator(mode="after")
    def _is_a_chain(self) -> "Recipe":
        if self.train is None and self.compress is None:
            raise ValueError("a recipe needs train or compress")
        if self.train is not None and self.train.dataset is None:
            raise ValueError("train.dataset: name the directory of a dataset")
        if self.compress is not None and self.compress.model is None and self.train is None:
            raise ValueError("compress.model: name a model directory, or add a train")
        packed = self.train is not None and self.train.quantize is not None
        if packed and self.compress is not None and self.compress.model is None:
            raise ValueError(f"compress: {PACKED}")
        return self


def read_spec(path: Path, adapter: TypeAdapter[Any]) -> Any:
    """A spec from a JSON or YAML file; BadInput names every field that is wrong."""
    try:
        return adapter.validate_python(read_yaml(path.read_text("utf-8")))
    except OSError as error:
        raise BadInput(f"{path} can't be read", str(error)) from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadInput(f"{path} is neither JSON nor YAML", str(error)) from error
    except ValidationError as error:
        raise BadInput(f"{path} is not what it should be", tell_problems(error)) from error


def tell_problems(error: ValidationError) -> str:
    """Every field that is wrong, by its path."""
    return "; ".join(
        f"{'.'.join(map(str, e['loc'])) or 'spec'}: {e['msg']}" for e in error.errors()
    )


def run_recipe(path: Path, out: Path, emit: Emit) -> dict[str, Any]:
    """Run a recipe into `out`; what is finished there already is not run again.

    Returns the paths of what was made. Raises BadInput, and GateFailed where a stage lost too
    much; the report tells of what there is then, too.
    """
    recipe: Recipe = read_spec(path, TypeAdapter(Recipe))
    made: dict[str, Any] = {}
    rows: list[ModelRow] = []
    training: Training | None = None
    if recipe.train is not None:
        student = _train(recipe, recipe.train, out, emit)
        made["model"] = str(student)
        training = _training(student)
        rows.append(_base(recipe, recipe.train, out, emit))
        rows.append(_measured(recipe, str(student), "student", recipe.train.student, out, emit))
    try:
        if recipe.compress is not None:
            _compress(recipe, recipe.compress, made.get("model"), out, _keeping(rows, emit))
    finally:
        if recipe.report and rows:
            made["report"] = _report(recipe, path, training, rows, out, emit)
    return made


def _train(recipe: Recipe, spec: TrainSpec, out: Path, emit: Emit) -> Path:
    from trainer.training import train

    return train(spec, out / "train", emit)


def _compress(
    recipe: Recipe, spec: CompressSpec, student: str | None, out: Path, emit: Emit
) -> None:
    from trainer.compress.chain import run

    inherited = {
        "model": spec.model or student,
        "dataset": spec.dataset or (recipe.train.dataset if recipe.train else None),
        "evaluate": spec.evaluate or recipe.evaluate,
    }
    run(spec.model_copy(update=inherited), out / "compress", emit)


def _base(recipe: Recipe, spec: TrainSpec, out: Path, emit: Emit) -> ModelRow:
    if spec.initial == "random":
        why = {"measurement": "the student began with random weights"}
        return ModelRow(id=spec.student, label="student base", role="base", why=why)
    return _measured(recipe, spec.student, "base", None, out, emit)


def _measured(
    recipe: Recipe,
    model: str,
    role: Literal["base", "student"],
    source: str | None,
    out: Path,
    emit: Emit,
) -> ModelRow:
    label = {"base": "student base", "student": "student"}[role]
    row = ModelRow(id=model, label=label, role=role, source=source)
    if recipe.evaluate is None:
        return row.model_copy(update={"why": {"measurement": "the recipe has no evaluate"}})
    threads = recipe.train.optimization.threads if recipe.train else None
    target = out / f"{role}.measurement.json"
    return row.model_copy(
        update={"measurement": evaluate(model, recipe.evaluate, target, emit, threads)}
    )


def evaluate(
    model: str, spec: EvalSpec, target: Path, emit: Emit, threads: int | None = None
) -> Measurement:
    """Measure a model, say so, and leave the measurement at `target`."""
    from trainer.evaluate import measure

    emit("phase", {"name": "evaluate", "detail": model})
    measurement = measure(model, spec, threads=threads, strict=True)
    write(target, measurement.model_dump_json(indent=1))
    skills = {name: skill.model_dump() for name, skill in measurement.skills.items()}
    emit("accuracy", {"model": model, "skills": skills})
    return measurement


def _training(student: Path) -> Training:
    card = json.loads((student / "retort.json").read_text("utf-8"))
    told = student / "samples.json"
    samples = json.loads(told.read_text("utf-8"))["measurements"] if told.is_file() else []
    return Training(
        method=card["method"],
        rows=card["dataset"]["rows"],
        left_out=card["dataset"]["too_long"],
        cut=card["dataset"].get("cut"),
        unsuited=card["dataset"].get("unsuited"),
        seed=card["spec"]["optimization"]["seed"],
        threads=card["threads"],
        steps=tuple(Step(step=step, loss=loss) for step, loss in card["losses"]),
        validation=tuple(Validation(step=step, loss=loss) for step, loss in card["validation"]),
        samples=tuple(Samples.model_validate(one) for one in samples),
    )


def _keeping(rows: list[ModelRow], emit: Emit) -> Emit:
    """Keeps the model of each stage that is told of: what a run ends with may be an error, and its
    directory may hold the stages of another recipe."""

    def told(event: str, fields: dict[str, Any]) -> None:
        emit(event, fields)
        if event == "stage":
            stage = StageReport.model_validate(fields["report"])
            if not rows:
                rows.append(_given(stage))
            rows.append(
                ModelRow(
                    id=stage.model,
                    label=stage.label,
                    role="stage",
                    source=stage.source,
                    stage=stage,
                )
            )

    return told


def _given(first: StageReport) -> ModelRow:
    """The model that a compression alone was given: its first stage has measured it."""
    measured = first.before.measurement
    return ModelRow(
        id=first.source,
        label=Path(first.source).name,
        role="base",
        measurement=measured,
        why={} if measured else {"measurement": "the recipe has no evaluate"},
    )


def _report(
    recipe: Recipe,
    path: Path,
    training: Training | None,
    rows: list[ModelRow],
    out: Path,
    emit: Emit,
) -> str:
    from trainer.report.build import run

    facts = RecipeFacts(
        name=recipe.name, text=path.read_text("utf-8"), spec=recipe.model_dump(mode="json")
    )
    chain = Chain(
        id=out.name,
        recipe=facts,
        created_at=datetime.now(UTC),
        training=training,
        models=tuple(rows),
        why={"lineage": "only the service keeps one"},
    )
    write(out / "chain.json", chain.model_dump_json(indent=1))
    run(out / "chain.json", out / "report", emit)
    return str(out / "report")


def write(path: Path, text: str) -> None:
    """A file that is whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = path.with_name(f".{path.name}.writing")
    written.write_text(text, "utf-8")
    written.replace(path)
