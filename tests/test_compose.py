"""The containers' files, as far as a machine without a Docker engine can try them: what they say is
looked at, and their commands are run by hand."""

import os
import re
import shlex
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from service import keys, login
from service.addresses import ALIVE
from service.broker import QUEUES
from service.keys import NewKey
from service.settings import Settings, broker_socket
from tests.conftest import ROOT
from tests.service.dashboard.live import answers, free_port
from tests.workers.conftest import new_site, wait_for
from tests.workers.test_workers import redis_at

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
GPU: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.gpu.yml").read_text())
DOCKERFILE = (ROOT / "Dockerfile").read_text()
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
RETORT = {name: service for name, service in OURS.items() if name != "teacher"}


def stages() -> dict[str, str]:
    """Stage -> its lines, those of the stage that it is built on first."""
    found: dict[str, str] = {}
    for text in re.split(r"(?m)^(?=FROM )", DOCKERFILE)[1:]:
        base, name = re.match(r"FROM (\S+) AS (\S+)", text).groups()  # type: ignore[union-attr]
        found[name] = found.get(base, "") + text
    return found


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_watched_restarted_and_not_root(name: str) -> None:
    service = SERVICES[name]
    assert service["healthcheck"]["test"]
    assert service["restart"] == "unless-stopped"
    if name in OURS:
        lines = stages()[service["build"]["target"]]
        assert re.findall(r"(?m)^USER (\S+)", lines)[-1] == "retort"
    else:
        assert service["user"] not in ("root", "0")


def test_volumes_and_dependencies_are_there() -> None:
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            name, _, place = volume.partition(":")
            assert name in COMPOSE["volumes"]
            if service in OURS.values():
                # A named volume takes the owner of the image's directory.
                assert place in re.findall(r"chown retort: (.*)", DOCKERFILE)[0].split()
        for other, wanted in service.get("depends_on", {}).items():
            assert "healthcheck" in SERVICES[other]
            assert wanted["condition"] == "service_healthy"


def test_every_queue_has_a_worker_and_every_setting_is_known() -> None:
    commands = [str(service["command"]) for service in OURS.values()]
    listened = [queue for one in commands for queue in re.findall(r" -Q (\S+)", one)]
    assert sorted(listened) == sorted({*QUEUES.values(), "control"})
    named = {name for service in OURS.values() for name in service.get("environment", {})}
    named |= set(re.findall(r"\bRETORT_\w+", DOCKERFILE))
    assert {name.removeprefix("RETORT_").lower() for name in named} <= set(Settings.model_fields)


def test_a_login_link_of_the_api_opens_on_the_host() -> None:
    api = SERVICES["api"]
    url = re.fullmatch(r"\$\{RETORT_URL:-(\S+)\}", api["environment"]["RETORT_API_URL"])
    assert url is not None
    (published,) = api["ports"]
    assert url[1] == f"http://{published.rpartition(':')[0]}"
    assert published.rpartition(":")[2] == api["environment"]["RETORT_PORT"]
    # Whose word is taken on who asks, and over what.
    assert "--forwarded-allow-ips ${TRUSTED_PROXY:-127.0.0.1}" in api["command"]


def test_what_serves_models_holds_vllm_and_is_reached_by_its_name() -> None:
    lines = stages()["serve"]
    place = re.search(r"RETORT_VLLM_PYTHON=(\S+)/bin/python", lines)
    assert place is not None
    assert f"{place[1]}/bin/pip install --no-cache-dir ${{VLLM}}" in lines
    assert str(SERVICES["teacher"]["command"]).startswith(f"{place[1]}/bin/python -m vllm")
    served = SERVICES["worker-serve"]
    assert served["build"]["target"] == SERVICES["teacher"]["build"]["target"] == "serve"
    assert served["environment"]["RETORT_SERVE_HOST"] == served["hostname"]
    with_gpu = [served, SERVICES["teacher"], GPU["services"]["worker-train"]]
    for service in with_gpu:
        (device,) = service["deploy"]["resources"]["reservations"]["devices"]
        assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    assert SERVICES["teacher"]["profiles"] == ["teacher"]
    assert "profiles" not in SERVICES["worker-build"]
    assert set(GPU["services"]) <= set(SERVICES)


def test_what_images_are_made_of_is_there() -> None:
    for copied in re.findall(r"(?m)^COPY (\S+)", DOCKERFILE):
        assert (ROOT / copied).exists()
    assert "TORCH=torch==2.13.0" in DOCKERFILE
    left_out = (ROOT / ".dockerignore").read_text().split("\n")
    assert {".git", ".venv*"} <= set(left_out)
    assert not {"service", "workers", "prompts", "trainer", "lowrank"} & set(left_out)


@pytest.mark.servers
@pytest.mark.timeout(300)
def test_a_workers_health_check_says_whether_it_answers(tmp_path: Path) -> None:
    site = new_site(tmp_path / "data")
    service = SERVICES["worker-build"]
    environment = given(tmp_path / "data", 0)

    def healthy() -> bool:
        check = service["healthcheck"]["test"][1].replace("$$", "$")
        check = check.replace("--timeout 10", "--timeout 3")
        check = check.replace("celery -A", f"{shlex.quote(sys.executable)} -m celery -A", 1)
        done = subprocess.run(["sh", "-c", check], env=environment, cwd=ROOT, capture_output=True)
        return done.returncode == 0

    with redis_at(broker_socket(site.settings.data_dir)):
        assert not healthy()
        with process(service["command"], environment):
            wait_for(healthy, 150)
    site.sessions.engine.dispose()


@pytest.mark.servers
@pytest.mark.timeout(300)
def test_several_processes_of_the_api_are_one(tmp_path: Path) -> None:
    port = free_port()
    site = new_site(tmp_path / "data", port=port)
    _, key = keys.create(site, NewKey(name="k", scopes=("admin",)))
    words = SERVICES["api"]["command"].replace("8700", str(port)).replace("0.0.0.0", "127.0.0.1")
    words = words.replace("${API_PROCESSES:-2}", "2")
    words = words.replace("${TRUSTED_PROXY:-127.0.0.1}", "127.0.0.1")
    url = f"http://127.0.0.1:{port}"
    with process(words, given(tmp_path / "data", port)) as api:
        wait_for(lambda: answers(f"{url}{ALIVE}"), 150)
        wait_for(lambda: serving(api.pid) == 2, 60)

        def submit(number: int) -> str:
            headers = {"Authorization": f"Bearer {key}", "Idempotency-Key": f"once-{number % 3}"}
            job = {"kind": "serve", "model": "org/model", "name": "served"}
            for _ in range(100):  # 409: the first with this key is under way in the other process
                answer = httpx.post(f"{url}/api/v1/jobs", json=job, headers=headers, timeout=60)
                if answer.status_code != 409:
                    break
            assert answer.status_code == 202, answer.text
            return str(answer.json()["id"])

        with ThreadPoolExecutor(8) as pool:
            assert len(set(pool.map(submit, range(24)))) == 3
        token = login.link(site.settings, url).partition("token=")[2]
        with httpx.Client(base_url=url, timeout=60, headers={"Origin": url}) as browser:
            first = browser.post("/login", data={"token": token})
            again = httpx.post(f"{url}/login", data={"token": token}, headers={"Origin": url})
            assert (first.status_code, again.status_code) == (303, 403)
            cookie = {"Cookie": "; ".join(f"{n}={v}" for n, v in browser.cookies.items())}
        # A connection of its own for each: whichever process takes it knows the session.
        seen = [httpx.get(f"{url}/jobs", headers=cookie, timeout=60).status_code for _ in range(12)]
        assert set(seen) == {200}
    site.sessions.engine.dispose()


def serving(pid: int) -> int:
    """Processes of uvicorn's that serve, the one that starts them and its helper left out."""
    children = psutil.Process(pid).children()
    return sum("spawn_main" in " ".join(child.cmdline()) for child in children)


def given(data: Path, port: int) -> dict[str, str]:
    mine = {"RETORT_DATA_DIR": str(data), "PYTHONPATH": str(ROOT)}
    return os.environ | mine | {"RETORT_API_URL": f"http://{socket.gethostname()}:{port}"}


class process:  # noqa: N801 - a context manager
    """A service's command, run with this Python, until the block ends."""

    def __init__(self, command: str, environment: dict[str, str]) -> None:
        words = [sys.executable, "-m", *shlex.split(command)]
        quiet = subprocess.DEVNULL
        self._running = subprocess.Popen(
            words, env=environment, cwd=ROOT, stdout=quiet, stderr=quiet
        )

    def __enter__(self) -> "subprocess.Popen[bytes]":
        return self._running

    def __exit__(self, *_: object) -> None:
        members = psutil.Process(self._running.pid).children(recursive=True)
        self._running.terminate()
        self._running.wait(60)
        for member in members:
            if member.is_running():
                member.kill()
