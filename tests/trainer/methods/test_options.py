"""No option of a method is dead: another value changes what is learnt, or is refused in words."""

from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from tests.trainer.conftest import make_model, save_model
from tests.trainer.methods.every import FIELDS, training_by
from tests.trainer.test_conformance import ready, step
from trainer.errors import BadInput
from trainer.spec import TrainSpec

COMMON = {
    "version",
    "method",
    "dataset",
    "student",
    "name",
    "optimization",
    "lora",
    "quantize",
    "weight_by",
    "initial",
}
"""Held by test_training, test_run_options, test_quantize, test_students and test_off_policy."""
REACHED = {"served_model", "api_key_env", "in_flight", "vllm"}
"""How a server is reached: test_served, test_vllm_student."""

OTHER = "{place}/other"
DRAWN = {"student_share": 1.0, "max_new_tokens": 6}
TEACHERS = {"teacher": OTHER, "teacher_load": {"bits": 4}}
ICT = {"kd_temperature": 3.0, "hard_weight": 0.9, "language_model_weight": 0.1}
CHANGES: dict[str, dict[str, Any]] = {
    "sequence_level": {},
    "rationale_then_answer": {},
    "step_by_step": {
        "label_share": 0.9,
        "label_prefix": "w38 ",
        "label_template": "w36 {{ answer }}",
        "rationale_prefix": "w37 ",
    },
    "forward_kl": {**TEACHERS, "kd_temperature": 1.0, "cross_entropy_weight": 0.9},
    "kd": {
        **TEACHERS,
        "divergence": {"kind": "tvd"},
        "kd_temperature": 2.0,
        "cross_entropy_weight": 0.5,
        "features": [],
    },
    "stored_kl": {
        "divergence": {"kind": "tvd"},
        "kd_temperature": 2.0,
        "cross_entropy_weight": 0.5,
    },
    "served_kl": {
        "teacher": "http://127.0.0.1:9/nobody",
        "top_k": 2,
        "divergence": {"kind": "tvd"},
        "kd_temperature": 2.0,
        "cross_entropy_weight": 0.5,
        "student_share": 1.0,
        "sampling_temperature": 0.3,
        "samples": 3,
        "max_new_tokens": 2,
    },
    "gkd": {
        **TEACHERS,
        "student_share": 0.0,
        "divergence": {"kind": "tvd"},
        "kd_temperature": 2.0,
        "sampling_temperature": 0.3,
        "samples": 3,
        "max_new_tokens": 2,
    },
    "minillm": {
        **TEACHERS,
        "max_new_tokens": 2,
        "samples": 3,
        "teacher_mix": 0.7,
        "single_step": False,
        "length_normalization": False,
        "discount": 0.5,
        "clip": 0.01,
        "text": None,
        "text_weight": 2.0,
    },
    "meta_ict": {**TEACHERS, **ICT},
    "multitask_ict": {**TEACHERS, **ICT, "query_template": "{{ input }} !"},
    "uld": {**TEACHERS, "weight": 0.2, "kd_temperature": 2.0},
}
REFUSED = {
    ("stored_kl", "kd_temperature"),
    ("served_kl", "kd_temperature"),
    ("multitask_ict", "query_template"),
}
CASES = [(method, field) for method, fields in CHANGES.items() for field in fields]


def test_every_field_is_here_or_named() -> None:
    for spec in get_args(get_args(TrainSpec)[0]):
        method = get_args(spec.model_fields["method"].annotation)[0]
        own = (
            spec.model_fields.keys()
            - COMMON
            - (REACHED if method in ("served_kl", "gkd") else set())
        )
        assert own == CHANGES[method].keys(), method


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student, a teacher and another one."""
    folder = tmp_path_factory.mktemp("place")
    save_model(folder / "other", make_model(5, hidden_size=48, intermediate_size=48))
    return folder


KNOWN: dict[tuple[str, bool], float] = {}
"""The losses that options are to change."""


def learnt(place: Path, method: str, changed: dict[str, Any]) -> float:
    """The loss of a step."""
    with training_by(place, method, changed) as spec:
        rows, student = ready(spec)
        return step(student, [rows], spec)[0]


@pytest.mark.slow
@pytest.mark.parametrize(("method", "field"), CASES)
def test_another_value_changes_what_is_learnt_or_is_refused(
    place: Path, method: str, field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.methods.served.FIRST_PATIENCE_S", 0.0)
    value = CHANGES[method][field]
    value = value.format(place=place) if value == OTHER else value
    drawn = method == "served_kl" and field in ("sampling_temperature", "samples", "max_new_tokens")
    given = DRAWN if drawn else {}
    if (method, field) in REFUSED:
        with pytest.raises((BadInput, ValidationError)):
            learnt(place, method, {field: value})
    elif value == "http://127.0.0.1:9/nobody":
        with pytest.raises(BadInput, match="can't be reached"):
            learnt(place, method, {field: value})
    else:
        if (method, drawn) not in KNOWN:
            KNOWN[method, drawn] = learnt(place, method, given)
        found = learnt(place, method, {**given, field: value})
        assert found != pytest.approx(KNOWN[method, drawn], rel=1e-6)


def test_every_method_is_here() -> None:
    assert CHANGES.keys() == FIELDS.keys()
