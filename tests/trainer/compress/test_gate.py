"""What gates let through, and what is said when they don't."""

import subprocess
import sys

from trainer.compress.gate import FAILED, find_failures, find_serving_failures
from trainer.compress.report import ModelFacts, ServingComparison, Shape
from trainer.measurement import Distance, Estimate, Measurement, wilson
from trainer.spec import Gate

SHAPE = Shape(parameters=1, nonzero=1, weight_bytes=2, layers=1)


def facts(correct: int | None, asked: int = 100) -> ModelFacts:
    if correct is None:
        return ModelFacts(path="m", shape=SHAPE)
    measurement = Measurement(
        model="m",
        skills={"a": wilson(correct, asked), "b": wilson(asked // 2, asked)},
        parameters=1,
        weight_bytes=2,
        generated_tokens=1,
        seconds=1.0,
        tokens_per_s=1.0,
    )
    return ModelFacts(path="m", shape=SHAPE, measurement=measurement)


def test_accuracy_may_fall_so_far_and_no_further() -> None:
    gate = Gate(max_accuracy_drop=0.1)
    assert find_failures(gate, facts(90), facts(71), None) == []  # the mean fell by 0.095
    (failure,) = find_failures(gate, facts(90), facts(68), None)
    assert "0.700 to 0.590" in failure
    assert find_failures(Gate(max_accuracy_drop=None), facts(90), facts(0), None) == []
    assert find_failures(gate, facts(None), facts(None), None) == []


def test_kl_has_a_bound_of_its_own() -> None:
    assert find_failures(Gate(max_kl=0.2), facts(90), facts(90), 0.19) == []
    (failure,) = find_failures(Gate(max_kl=0.2), facts(90), facts(90), 0.21)
    assert "0.2100 nats" in failure
    assert find_failures(Gate(), facts(90), facts(90), 99.0) == []


def test_a_drop_within_chance_is_told_as_such_and_stops_the_stage_all_the_same() -> None:
    gate = Gate(max_accuracy_drop=0.1)
    (failure,) = find_failures(gate, facts(9, 10), facts(6, 10), None)
    assert "0.700 to 0.550" in failure
    assert "over 20 questions: it may be chance alone; ask more." in failure
    (failure,) = find_failures(gate, facts(90), facts(68), None)
    assert "over 200 questions: chance may have taken it past the bound; ask more." in failure
    (failure,) = find_failures(gate, facts(900, 1000), facts(500, 1000), None)
    assert failure.endswith("over 2000 questions.")


def test_a_kl_whose_interval_holds_the_bound_is_told_as_such() -> None:
    gate, kl = Gate(max_kl=0.2), Estimate(value=0.21, low=0.19, high=0.23, rows=40)
    found = Distance(kl=kl, top1_agreement=None)
    (failure,) = find_failures(gate, facts(90), facts(90), 0.21, found)
    assert "0.1900 to 0.2300 over 40 rows: chance may have taken it past the bound." in failure
    above = found.model_copy(update={"kl": kl.model_copy(update={"low": 0.205})})
    (failure,) = find_failures(gate, facts(90), facts(90), 0.21, above)
    assert failure.endswith("Its 95% interval is 0.2050 to 0.2300.")


def test_outputs_that_are_no_numbers_pass_no_gate() -> None:
    for gate in (Gate(), Gate(max_kl=0.2), Gate(max_accuracy_drop=None)):
        (failure,) = find_failures(gate, facts(90), facts(90), float("nan"))
        assert "not finite" in failure


def test_an_engine_that_disagrees_or_fails_counts_a_missing_one_does_not() -> None:
    assert find_serving_failures(comparison(True), "") == []
    assert "differently" in find_serving_failures(comparison(False), "")[0]
    assert find_serving_failures(None, f"{FAILED}: it ended with 1")
    assert find_serving_failures(None, "not checked: no vLLM was found") == []


def comparison(passed: bool) -> ServingComparison:
    return ServingComparison(
        passed=passed,
        prompts=1,
        tokens=1,
        dtype="bfloat16",
        mean_logprob_difference=0.01 if passed else 0.3,
        limit=0.05,
        equal_completions=1.0,
        equal_tokens=1.0,
        vllm_tokens_per_s=1.0,
        ready_s=1.0,
        vllm_version="x",
    )


def test_reports_and_gates_need_no_torch() -> None:
    code = "import sys, trainer.compress.report, trainer.compress.gate; "
    code += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
