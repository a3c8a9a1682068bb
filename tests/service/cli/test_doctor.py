import json
import socket
import sys
from pathlib import Path

import pytest

from service import jobs
from service.cli import doctor
from service.settings import Settings
from service.site import Site
from tests.service.cli.conftest import Cli
from tests.service.given import spec

VLLM_PYTHON = Path(__file__).parents[3] / ".venv-vllm" / "bin" / "python"


def test_it_has_a_line_for_each_check_and_an_exit_code(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said = cli("doctor", "--json")
    found = {one["check"]: one for one in json.loads(said.out)["checks"]}
    assert len(found) == len(doctor.CHECKS)
    assert said.code == (1 if any(one["state"] == "wrong" for one in found.values()) else 0)
    assert found["data dir"]["state"] == "ok"

    monkeypatch.setenv("RETORT_BROKER_URL", f"redis+socket://{tmp_path}/none.sock")
    monkeypatch.setenv("RETORT_MIN_FREE_BYTES", str(2**62))
    monkeypatch.setenv("RETORT_DATABASE_URL", "postgresql://nobody@127.0.0.1:9/none")
    ill = cli("doctor")
    assert ill.code == 1
    lines = {line[2:14].strip(): line for line in ill.out.splitlines()}
    for check, told in (
        ("redis", "RETORT_BROKER_URL"),
        ("disk", "refused"),
        ("database", "RETORT_DATABASE_URL"),
    ):
        assert lines[check].startswith("✗")
        assert told in lines[check]


def test_a_taken_port_is_noted(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert doctor.port(settings.model_copy(update={"port": port})).state == "note"
    assert doctor.port(settings.model_copy(update={"port": 0})).state == "ok"


def test_a_vllm_that_is_not_there_is_told(settings: Settings, tmp_path: Path) -> None:
    away = settings.model_copy(update={"vllm_python": tmp_path / "python"})
    assert doctor.vllm(away).state == "wrong"


@pytest.mark.vllm
def test_vllm_is_found_whatever_its_build_is_called(settings: Settings) -> None:
    found = doctor.vllm(settings.model_copy(update={"vllm_python": VLLM_PYTHON}))
    assert (found.state, found.words[:4]) == ("ok", "vllm"), found.words


def test_an_environment_without_vllm_is_noted(settings: Settings) -> None:
    found = doctor.vllm(settings.model_copy(update={"vllm_python": Path(sys.executable)}))
    assert found.state == "note"


def test_a_data_directory_that_cannot_be_written(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    inside_a_file = settings.model_copy(update={"data_dir": tmp_path / "file" / "data"})
    assert doctor.data_directory(inside_a_file).state == "wrong"


def test_no_color_is_respected(
    site: Site, api: str, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = jobs.submit(site, spec(kind="serve", model="org/model", name="served"))
    jobs.cancel(site, job.id)
    watch = ("watch", job.id, "--no-exit-status", "--url", api)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[33m" in cli(*watch).out
    monkeypatch.setenv("NO_COLOR", "1")
    said = cli(*watch).out
    assert ("cancelled" in said, "\x1b[33m" in said) == (True, False)
