import subprocess
import sys

import pytest
from fastapi import FastAPI

import service.app
from service.again import Clone, Retry
from service.datasets import DatasetImport
from service.keys import NewKey
from service.preview import PreviewRequest
from service.review import Review
from service.routes import examples
from service.settings import Settings
from service.spec import job_spec
from service.teachers import Registration
from service.timetable import ScheduleSpec

HEAVY = ("torch", "transformers", "vllm", "workers")


@pytest.mark.slow
def test_the_service_never_loads_torch() -> None:
    program = f"import sys, service.app; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]"


def test_every_request_body_has_examples_that_are_valid(settings: Settings) -> None:
    for parse, given in (
        (job_spec.validate_python, examples.JOBS),
        (Registration.model_validate, examples.TEACHERS),
        (DatasetImport.model_validate, examples.IMPORTS),
        (ScheduleSpec.model_validate, examples.SCHEDULES),
        (Clone.model_validate, examples.CLONES),
        (Retry.model_validate, examples.RETRIES),
        (PreviewRequest.model_validate, examples.PREVIEWS),
        (Review.model_validate, examples.REVIEWS),
        (NewKey.model_validate, examples.KEYS),
    ):
        for example in given.values():
            parse(example["value"])
    assert set(examples.JOBS) == set(job_spec.json_schema()["discriminator"]["mapping"])


def test_every_request_body_is_documented_with_an_example(settings: Settings) -> None:
    schema = service.app.create_app(settings).openapi()
    bodies = [
        (path, content)
        for path, operations in schema["paths"].items()
        for operation in operations.values()
        for content in operation.get("requestBody", {}).get("content", {}).values()
    ]
    assert len(bodies) >= 4
    assert [path for path, content in bodies if not content.keys() & {"example", "examples"}] == []


def test_uvicorn_finds_the_app_by_name(monkeypatch, settings: Settings) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("RETORT_DATA_DIR", str(settings.data_dir))
    assert isinstance(service.app.app, FastAPI)
