"""Every documented operation, with whatever the document allows: no 5xx, no undocumented status."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import Failure, FailureGroup, not_a_server_error
from schemathesis.specs.openapi.checks import status_code_conformance

from service import keys
from service.app import create_app
from service.keys import NewKey
from service.settings import Settings

pytestmark = pytest.mark.servers

EXAMPLES = 4
CHECKS = [not_a_server_error, status_code_conformance]
ENDLESS = "/api/v1/jobs/{job_id}/events"
"""A job's events go on until it ends; tests of their own follow them."""


@dataclass(frozen=True)
class World:
    """An installation's API, and the header that opens it."""

    app: FastAPI
    headers: dict[str, str]

    def schema(self, path: str) -> Any:
        return schemathesis.openapi.from_asgi(path, self.app, headers=self.headers)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> World:
    data = tmp_path_factory.mktemp("openapi")
    shutil.copy(empty_database, data / "retort.db")
    away = {"broker_url": f"redis+socket://{data}/none.sock", "api_url": "http://testserver"}
    app = create_app(Settings(data_dir=data, min_free_bytes=0, **away))
    _, key = keys.create(app.state.site, NewKey(name="all", scopes=("admin",)))
    return World(app, {"Authorization": f"Bearer {key}"})


bounded = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize("path", ["/openapi.json", "/v1/openapi.json"])
def test_every_operation_answers_as_documented(world: World, path: str) -> None:
    faults: list[str] = []
    for found in world.schema(path).get_all_operations():
        operation = found.ok()
        if operation.path != ENDLESS:
            faults += check(operation, world)
    assert faults == []


def check(operation: Any, world: World) -> list[str]:
    """What was wrong with the answers of one operation."""

    @bounded
    @given(operation.as_strategy())
    def ask(case: Any) -> None:
        case.call_and_validate(checks=CHECKS, headers=world.headers)

    try:
        ask()
    except (FailureGroup, Failure) as failure:
        inner = failure.exceptions if isinstance(failure, FailureGroup) else (failure,)
        return [f"{operation.method} {operation.path}: {one}" for one in inner]
    return []
