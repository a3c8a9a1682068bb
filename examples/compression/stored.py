"""python -m examples.compression.stored --model STUDENT --dataset DIR: is what is saved what was
trained?

Trains a student on four bits by QAT and by PEQA, saves it in the student's dtype, and prints how
far log-probabilities of the saved model lie from those of the trained one over held-out
completions. The student as it is, in bf16 against fp32, shows what that arithmetic alone does.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from examples.compression.table import SHORT
from trainer.compress.fake_quant import restore, rounded_linears
from trainer.compress.making import TRAINED
from trainer.compress.qat import Workplace
from trainer.data import TokenRow, encode, read_records
from trainer.evaluate import listen
from trainer.events import silent
from trainer.loading import end_ids, load_model, load_tokenizer
from trainer.spec import QuantizeFinetune, QuantizeTrain

PROMPTS = 200
HEADER = """| | run in, trained one in | mean over all tokens (largest) | likeliest token | KL |
|---|---|---|---|---|"""


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m examples.compression.stored")
    parser.add_argument("--model", type=Path, required=True, help="a student, in bf16")
    parser.add_argument("--dataset", type=Path, required=True, help="its rows")
    parser.add_argument("--steps", type=int, default=12)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    rows = held_out(given.model, given.dataset)
    print(f"{sum(row.completion_tokens for row in rows):,} tokens of {len(rows)} prompts\n{HEADER}")
    whole, half = load_model(given.model, torch.float32), load_model(given.model, torch.bfloat16)
    print(line("student", "bf16, fp32", logprobs(whole, rows), logprobs(half, rows)))
    training = {
        "optimization": {
            **SHORT, "batch_size": 8, "learning_rate": 5e-4, "max_steps": given.steps, "threads": 1
        }
    }  # fmt: skip
    four = {"scheme": "W4A16", "group_size": 32, "training": training}
    for stage in (
        QuantizeTrain.model_validate({"kind": "qat", **four}),
        QuantizeFinetune.model_validate({"kind": "qaf", **four}),
    ):
        for told in compared(stage, given.model, given.dataset, rows):
            print(told, flush=True)


def compared(
    stage: QuantizeTrain | QuantizeFinetune, source: Path, dataset: Path, rows: Sequence[TokenRow]
) -> list[str]:
    """Lines of the table for one way of training."""
    name = "QAT" if stage.kind == "qat" else "PEQA"
    with tempfile.TemporaryDirectory() as place:
        work = Workplace(source, source, dataset, Path(place, "training"), 1, silent)
        made = TRAINED[stage.kind](stage, work)
        if made.save is None:
            raise AssertionError(f"{name} doesn't save itself")
        made.save(Path(place, "model"))
        saved = {
            dtype: logprobs(load_model(Path(place, "model"), dtype), rows)
            for dtype in (torch.float32, torch.bfloat16)
        }
    trained = logprobs(made.model, rows)
    in_half = logprobs(halved(made.model), rows)
    return [
        line(name, "fp32, fp32", trained, saved[torch.float32]),
        line(name, "bf16, bf16", in_half, saved[torch.bfloat16]),
        line(name, "bf16, fp32", trained, saved[torch.bfloat16]),
    ]


def held_out(model: Path, dataset: Path) -> tuple[TokenRow, ...]:
    """Rows that nothing is trained on."""
    records = [*read_records(dataset, "validation"), *read_records(dataset, "test")]
    tokenizer = load_tokenizer(model)
    ends = end_ids(load_model(model), tokenizer)
    return encode(records[:PROMPTS], tokenizer, 256, ends).rows


def halved(model: PreTrainedModel) -> PreTrainedModel:
    """The trained model with the weights that it rounds to, computing in bf16 throughout."""
    merged = {name: module.merged() for name, module in rounded_linears(model).items()}
    restore(model)
    for name, weight in merged.items():
        model.get_submodule(name).get_parameter("weight").data = weight
    for parameter in model.parameters():  # not buffers: rotary frequencies stay in fp32
        parameter.data = parameter.data.to(torch.bfloat16)
    return model


@torch.inference_mode()
def logprobs(model: PreTrainedModel, rows: Sequence[TokenRow]) -> Tensor:
    """[K, V] of all completion tokens."""
    said = listen(model, rows)
    return torch.cat([said.logits(each).log_softmax(-1) for each in range(len(said.hidden))])


def line(name: str, run: str, expected: Tensor, found: Tensor) -> str:
    """Absolute differences in nats; KL(trained || saved) a token."""
    off = (found - expected).abs()
    likeliest = off.gather(1, expected.argmax(-1, keepdim=True)).mean()
    kl = float((expected.exp() * (expected - found)).sum(-1).mean())
    return f"| {name} | {run} | {off.mean():.4f} ({off.max():.3f}) | {likeliest:.4f} | {kl:.0e} |"


if __name__ == "__main__":
    main()
