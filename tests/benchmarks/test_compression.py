"""The benchmarks of compression run, compare both sides first, and say what they measured."""

import json

import pytest
import torch

from benchmarks import factorize, qat, size, stages
from benchmarks.result import Result, as_json, as_text


def check(result: Result) -> None:
    """A figure, what it is held against, and whether that is met."""
    told = json.loads(as_json(result))
    assert told["name"] == result.name
    assert (result.peer or result.limit or 0) > 0
    assert result.ratio > 0
    assert result.growth
    assert ("met" in as_text(result)) is result.met or "MISSED" in as_text(result)


def test_factorize_loses_no_more_than_the_plain_way() -> None:
    result = factorize.run(True)
    check(result)
    assert all(row["loss"] <= factorize.LOSS for row in result.growth)
    assert {row["whitening"] for row in result.growth} == {0.0, 1.0}


def test_factorize_refuses_to_time_what_loses_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(factorize, "LOSS", 0.5)
    with pytest.raises(AssertionError, match="as much"):
        factorize.measure(32, "whitening", 1)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Attempting to save a model with offloaded modules")
def test_stages_make_the_same_models_in_a_chain_as_apart() -> None:
    result = stages.run(True)
    check(result)
    assert result.growth[-1]["stages"] == 2


def test_every_artifact_is_held_against_what_it_needs() -> None:
    result = size.run(True)
    check(result)
    assert len(result.growth) == 3 + len(size.QUANTIZED)
    assert all(row["bytes"] >= row["needed"] for row in result.growth)
    by_size = [row["bytes"] for row in result.growth]
    assert max(by_size) == by_size[0]
    assert result.ratio == max(row["ratio"] for row in result.growth)


@pytest.mark.slow
def test_a_qat_step_is_held_against_the_plain_one() -> None:
    result = qat.run(True)
    check(result)
    speed, recovery = result.growth
    assert speed["ours_s"] > 0
    assert recovery["rounded_kl"] > 0
    assert recovery["recovered"] == 1 - recovery["qat_kl"] / recovery["rounded_kl"]
    assert result.met is (speed["ratio"] <= qat.TARGET and recovery["recovered"] >= qat.RECOVERED)


def test_batches_of_text_differ() -> None:
    ids = torch.arange(10_000)
    assert qat.batch(ids, 0).shape == (qat.BATCH, qat.LENGTH)
    assert not torch.equal(qat.batch(ids, 0), qat.batch(ids, 1))
