"""Training goes down, resumes to the same weights, and exports what transformers can read."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from examples.demo.batches import Batch, make_batches
from examples.demo.curriculum import draw_problems
from examples.demo.shape import Shape, export, make_model
from examples.demo.tokenizer import load_tokenizer, train_tokenizer
from examples.demo.train import Plan, rate_at, start_run, train, train_step, weighted_nll

TINY = Shape(width=32, inner_width=64, layers=1, heads=1, key_value_heads=1)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(problems=300)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return Plan(
        role="student-base",
        work=tmp_path,
        steps=6,
        rows=8,
        parts=2,
        warmup_steps=2,
        checkpoint_every=3,
        evaluate_every=1000,
    )


def test_a_step_lowers_the_loss_of_its_own_batch(
    tokenizer: PreTrainedTokenizerFast, plan: Plan
) -> None:
    torch.manual_seed(0)
    run = start_run(plan, make_model(TINY, tokenizer))
    batches = make_batches(draw_problems("teacher", 0, 0, 0.5, 16), tokenizer, 2)
    losses = [train_step(run, batches, 1.0) for _ in range(24)]
    assert losses[-1] < losses[0] - 1


def test_a_stopped_run_ends_with_the_weights_of_an_unbroken_one(
    tokenizer: PreTrainedTokenizerFast, plan: Plan, tmp_path: Path
) -> None:
    unbroken = train(replace(plan, work=tmp_path / "unbroken"), TINY, tokenizer)
    stopped = replace(plan, work=tmp_path / "stopped")
    with pytest.raises(KeyboardInterrupt):
        train(replace(stopped, evaluate_every=4), TINY, Interrupting(tokenizer))
    resumed = train(stopped, TINY, tokenizer)
    for name, weight in unbroken.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name


def test_a_run_can_start_from_a_models_weights(
    tokenizer: PreTrainedTokenizerFast, plan: Plan, tmp_path: Path
) -> None:
    torch.manual_seed(5)
    given = make_model(TINY, tokenizer)
    export(given, tokenizer, tmp_path / "given")
    still = replace(plan, start=tmp_path / "given", steps=1, matrix_rate=0.0, vector_rate=0.0)
    for name, weight in train(still, TINY, tokenizer).state_dict().items():
        assert torch.equal(weight, given.state_dict()[name].bfloat16().float()), name


def test_the_loss_is_the_weighted_mean_of_next_token_losses(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    torch.manual_seed(0)
    model = make_model(TINY, tokenizer)
    ids = torch.randint(5, 1000, (2, 7))
    weights = torch.tensor([[0, 0, 1.0, 2.0, 0, 0, 0], [0, 1.0, 0, 0, 0, 3.0, 0]])
    logits = model(input_ids=ids).logits.detach()
    by_hand = sum(
        float(weights[b, t]) * cross_entropy(logits[b, t - 1], ids[b, t])
        for b in range(2)
        for t in range(1, 7)
    )
    assert weighted_nll(model, Batch(ids, weights)).item() == pytest.approx(float(by_hand), 1e-5)


def test_padding_does_not_change_the_loss(tokenizer: PreTrainedTokenizerFast) -> None:
    torch.manual_seed(0)
    model = make_model(TINY, tokenizer)
    ids, weights = torch.randint(5, 1000, (1, 6)), torch.ones(1, 6)
    padded = Batch(
        torch.cat([ids, torch.zeros(1, 4, dtype=torch.long)], 1),
        torch.cat([weights, torch.zeros(1, 4)], 1),
    )
    plain = weighted_nll(model, Batch(ids, weights)).item()
    assert weighted_nll(model, padded).item() == pytest.approx(plain, 1e-5)


def test_steps_depend_on_seed_and_step_alone() -> None:
    assert draw_problems("teacher", 0, 7, 0.5, 20) == draw_problems("teacher", 0, 7, 0.5, 20)
    assert draw_problems("teacher", 0, 7, 0.5, 20) != draw_problems("teacher", 1, 7, 0.5, 20)
    assert draw_problems("teacher", 0, 7, 0.5, 20) != draw_problems("teacher", 0, 8, 0.5, 20)


def test_the_student_base_never_sees_a_composition() -> None:
    for problem in draw_problems("student-base", 0, 0, 0.5, 400):
        if problem.skill == "cot":
            assert problem.completion.count("=") <= 1
        if problem.skill == "if":
            assert "\n" not in problem.completion


def test_the_rate_warms_up_and_decays(plan: Plan) -> None:
    rates = [rate_at(plan, step, step / 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.5)
    assert rates[10] == pytest.approx(1.0)
    assert rates[-1] < 0.03


def test_an_exported_model_answers_like_the_trained_one(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = make_model(TINY, tokenizer)
    export(model, tokenizer, tmp_path / "model")
    loaded = LlamaForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    ids = torch.tensor([load_tokenizer(tmp_path / "model")("Ann has 12 pears.").input_ids])
    assert torch.allclose(model(ids).logits, loaded(ids).logits, atol=0.02)
    assert loaded.generation_config.eos_token_id == tokenizer.eos_token_id
    assert not list(tmp_path.glob(".*"))


class Interrupting(PreTrainedTokenizerFast):
    """Stops the run at its first evaluation, as Ctrl-C would."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        super().__init__(  # type: ignore[no-untyped-call]
            tokenizer_object=tokenizer.backend_tokenizer, eos_token="<|end|>", pad_token="<|pad|>"
        )

    def apply_chat_template(self, *args: object, **kwargs: object) -> str:
        raise KeyboardInterrupt
