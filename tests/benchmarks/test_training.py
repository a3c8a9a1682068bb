"""The benchmarks of training run, compare both sides first, and say what they measured."""

import importlib.util
from dataclasses import replace

import pytest

from benchmarks import agreement, kd_loss, kd_step, rollout
from benchmarks.peer import NoPeerError
from tests.benchmarks.test_compression import check
from trainer.objectives import DIVERGENCES


@pytest.mark.slow
def test_kd_loss_compares_before_it_times(monkeypatch: pytest.MonkeyPatch) -> None:
    check(kd_loss.run(True))
    monkeypatch.setattr(kd_loss, "TOLERANCE", -1.0)
    with pytest.raises(AssertionError, match="different losses"):
        kd_loss.measure(kd_loss.QUICK[0])


def test_kd_loss_takes_as_many_logits_at_once_as_a_case_says() -> None:
    found = kd_loss.measure(replace(kd_loss.QUICK[0], rounds=1, alive=2**16))
    assert found["chunk"] == 2**16 // 2_000
    assert "chunk" not in kd_loss.measure(replace(kd_loss.QUICK[0], rounds=1))


def test_kd_loss_takes_every_divergence_that_a_training_does() -> None:
    assert {case.kind for case in kd_loss.FULL} == set(DIVERGENCES)
    assert len({kd_loss.divergence(kind) for kind in kd_loss.KINDS}) == len(DIVERGENCES)


@pytest.mark.parametrize("kind", kd_loss.OTHERS)
def test_kd_loss_compares_what_trl_lacks_with_dense_autograd_alone(
    kind: kd_loss.Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = kd_loss.Case(kind, 1_000, positions=64, rounds=1, peers=False)
    found = kd_loss.measure(case)
    assert kd_loss.KINDS[int(found["kind"])] == kind
    assert found["ratio"] == found["ours_s"] / found["floor_s"] > 0
    assert found.keys().isdisjoint({"dense_s", "trl_s", "beta"})
    monkeypatch.setattr(kd_loss, "dense", lambda inputs: 1.01 * kd_loss.ours(inputs))
    with pytest.raises(AssertionError, match="ours and dense compute different losses"):
        kd_loss.measure(case)


def test_kd_step_compares_before_it_times(monkeypatch: pytest.MonkeyPatch) -> None:
    result = kd_step.run(True)
    check(result)
    assert result.growth[-1]["learnt"] > result.growth[0]["learnt"]
    monkeypatch.setattr(kd_step, "TOLERANCE", -1.0)
    with pytest.raises(AssertionError, match="different losses"):
        kd_step.measure(4, 64, 1_000, 64, 1)


@pytest.mark.slow
def test_rollout_compares_before_it_times(monkeypatch: pytest.MonkeyPatch) -> None:
    check(rollout.run(True))
    monkeypatch.setattr(rollout, "greedy", lambda *given: [])
    with pytest.raises(AssertionError, match="different answers"):
        rollout.measure(8, 64, 960, 4, 1)


def test_agreement_without_trl_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "trl" else find(name)
    )
    with pytest.raises(NoPeerError, match=r"pip install --no-deps --target .peers trl==1\.16\.0"):
        agreement.run(True)
