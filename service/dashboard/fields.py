"""The form beside the YAML: the fields that most jobs need. The YAML can say everything else."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from prompts.spec import CotBuild, IclBuild, InstructionBuild
from prompts.verify import VerifierSpec
from trainer.spec import CompressSpec, TrainSpec

Input = Literal[
    "text", "area", "number", "choice", "seeds", "evaluation", "teacher", "dataset", "model"
]


@dataclass(frozen=True)
class FormField:
    """One input, and where in the spec its value belongs."""

    path: str
    label: str
    input: Input = "text"
    help: str = ""
    choices: tuple[str, ...] = ()


def _tags(union: Any, tag: str) -> tuple[str, ...]:
    """The values of the field that tells a union's members apart."""
    members = get_args(get_args(union)[0])
    return tuple(get_args(member.model_fields[tag].annotation)[0] for member in members)


def _defaults(model: type[BaseModel]) -> dict[str, Any]:
    """What stands in a spec's fields that nobody gives, as JSON."""
    return {
        name: to_jsonable_python(field.get_default(call_default_factory=True))
        for name, field in model.model_fields.items()
        if not field.is_required()
    }


METHODS = _tags(TrainSpec, "method")
VERIFIERS = _tags(VerifierSpec, "kind")

_NAME = FormField("build.name", "Dataset name", help="Each build of a name is a new version.")
_TEACHER = FormField("build.teacher", "Teacher", "teacher")
_SEEDS = FormField("build.seeds", "Seeds", "seeds", "An uploaded JSONL file: one prompt a line.")
_ASKING = (
    FormField("build.template", "Template", "area", "Jinja2, with the seed's fields."),
    FormField("build.sampling.max_tokens", "Most tokens per answer", "number"),
    FormField("build.sampling.temperature", "Sampling temperature", "number", "0 is greedy."),
    FormField("build.limit", "First so many seeds", "number", "Empty: all of them."),
    FormField("build.target_rows", "Stop at so many accepted", "number"),
    FormField("build.max_in_flight", "Requests in flight", "number"),
)
_TRAINING = (
    FormField("train.optimization.learning_rate", "Learning rate", "number"),
    FormField("train.optimization.epochs", "Epochs", "number"),
    FormField("train.optimization.batch_size", "Rows in a step", "number"),
    FormField("evaluate.data", "Evaluation file", "evaluation", "Measures the model when trained."),
)

FORMS: dict[str, tuple[FormField, ...]] = {
    "cot": (
        _NAME,
        _TEACHER,
        _SEEDS,
        FormField("build.gold_field", "Field of the gold answer"),
        FormField("build.verify.kind", "Check answers", "choice", choices=VERIFIERS),
        FormField(
            "build.samples",
            "Samples per row",
            "number",
            "More than 1: the right or most agreed one is kept.",
        ),
        *_ASKING,
    ),
    "icl": (
        _NAME,
        _TEACHER,
        _SEEDS,
        FormField("build.pool", "Labelled pool", "seeds", "Empty: the seeds' own train split."),
        FormField("build.demonstrations", "Demonstrations per prompt", "number"),
        *_ASKING,
    ),
    "if": (_NAME, _TEACHER, _SEEDS, *_ASKING),
    "train": (
        FormField("train.name", "Model name"),
        FormField(
            "train.method",
            "Method",
            "choice",
            choices=METHODS,
        ),
        FormField("train.dataset", "Dataset", "dataset"),
        FormField("train.student", "Student to start from", "model", "Id, directory or hub name."),
        FormField(
            "train.teacher",
            "Teacher's weights",
            "model",
            "Where the method asks it while training.",
        ),
        *_TRAINING,
    ),
    "compress": (
        FormField("compress.model", "Model", "model"),
        FormField("compress.dataset", "Calibration dataset", "dataset"),
        FormField("compress.evaluate.data", "Evaluation file", "evaluation"),
        FormField("compress.evaluate.limit_per_skill", "Rows per skill", "number"),
    ),
}
"""Kind of job -> its form. Stages of a compression are written in the YAML."""

STARTS: dict[str, dict[str, Any]] = {
    **{
        kind: {"kind": "build", "build": {"kind": kind, "name": "dataset"}}
        for kind in ("cot", "icl", "if")
    },
    "train": {"kind": "train", "train": {"method": "rationale_then_answer", "name": "student"}},
    "compress": {
        "kind": "compress",
        "compress": {
            "stages": [{"kind": "wanda", "sparsity": 0.5}, {"kind": "ptq", "scheme": "W8A8"}]
        },
    },
}
DEFAULTS: dict[str, dict[str, Any]] = {
    "cot": {"build": _defaults(CotBuild)},
    "icl": {"build": _defaults(IclBuild)},
    "if": {"build": _defaults(InstructionBuild)},
    "train": {"train": _defaults(get_args(get_args(TrainSpec)[0])[0])},
    "compress": {"compress": _defaults(CompressSpec)},
}
"""Kind of job -> what holds where an input is empty. All methods of training share theirs."""
FROM_ELSEWHERE = ("train.teacher", "train.student")
"""Models that a training uses, not what it is about."""
TITLES = {
    "cot": "Chain of thought",
    "icl": "In-context learning",
    "if": "Instructions",
    "train": "Training",
    "compress": "Compression",
}


def about(kind: str, *, dataset: str, model: str, teacher: str) -> dict[str, Any]:
    """The start of a kind of job (CoT for one that isn't known), with the dataset, model or teacher
    that it is to be about in its place."""
    kind = kind if kind in STARTS else "cot"
    named = {"dataset": dataset, "model": model, "teacher": teacher}
    given = {
        field.path: named[field.input]
        for field in FORMS[kind]
        if named.get(field.input) and field.path not in FROM_ELSEWHERE
    }
    return merged(STARTS[kind], kind, given)


def form_of(spec: Any) -> str | None:
    """The form that fits a spec; None if only the YAML does."""
    kind = spec.get("kind") if isinstance(spec, dict) else None
    if kind == "build":
        build = spec.get("build")
        kind = build.get("kind") if isinstance(build, dict) else None
    return kind if isinstance(kind, str) and kind in FORMS else None


def value_at(spec: Any, path: str) -> Any:
    """What stands at a dotted path; None for nothing."""
    here = spec
    for step in path.split("."):
        here = here.get(step) if isinstance(here, dict) else None
    return here


def shown_default(form: str, path: str) -> str:
    """What holds while an input is empty, for its placeholder."""
    found = value_at(DEFAULTS[form], path)
    return "" if found is None else str(found)


def merged(spec: Mapping[str, Any], form: str, given: Mapping[str, str]) -> dict[str, Any]:
    """The spec with the form's values put in; an empty input takes its field out. What the form
    doesn't know of stays as it was."""
    found = dict(spec)
    for field in FORMS[form]:
        value = _read(field, given[field.path]) if field.path in given else None
        # Only what changed: a value that the form can't show must not be lost.
        if field.path in given and value != value_at(found, field.path):
            found = _put(found, field.path.split("."), value)
    return found


def _put(spec: dict[str, Any], steps: list[str], value: Any) -> dict[str, Any]:
    step, *rest = steps
    below = spec.get(step)
    if rest:
        value = _put(below if isinstance(below, dict) else {}, rest, value) or None
    kept = {key: each for key, each in spec.items() if key != step or value is not None}
    return kept if value is None else kept | {step: value}


def _read(field: FormField, text: str) -> Any:
    text = text.replace("\r\n", "\n") if field.input == "area" else text.strip()
    if text == "":
        return None
    if field.input != "number":
        return text
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text
