"""`retort evaluate`: any model on a dataset's rows, on this machine; no stack need be up."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from service.cli.options import Json, Screen, screen
from service.cli.trainer import run_trainer

FIGURES = {
    "perplexity": ("perplexity of completions", 3),
    "exact_match": ("answers equal to the completion", 3),
    "accuracy": ("answers that the verifier takes", 3),
    "rouge_l": ("ROUGE-L of answers with completions", 3),
    "kl": ("KL(teacher || model), nats per token", 4),
    "top1_agreement": ("likeliest token is the teacher's", 3),
}
"""Figures with an interval: what they are, and their decimals."""
SHOWN = 300
"""Characters of a text; --json has the whole of it."""


def evaluate(
    model: Annotated[
        str, typer.Argument(help="A model's directory, or a hub name.", show_default=False)
    ],
    dataset: Annotated[Path, typer.Option(help="A dataset's directory.", show_default=False)],
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    teacher: Annotated[
        str | None, typer.Option(help="A model to compare with, token by token.")
    ] = None,
    limit: Annotated[int, typer.Option(min=2, help="Rows, evenly spread over the split.")] = 200,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Of each greedy answer.")] = 160,
    verify: Annotated[
        str | None, typer.Option(help="Verifier's kind; by default what the dataset names.")
    ] = None,
    samples: Annotated[int, typer.Option(min=0, help="Answers to show side by side.")] = 5,
    vllm: Annotated[bool, typer.Option(help="Measure its speed in vLLM too.")] = False,
    vllm_python: Annotated[
        Path | None, typer.Option(help="Python of vLLM's environment; means --vllm.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.")] = None,
    as_json: Json = False,
) -> None:
    """Measure a model on a dataset: perplexity, right answers, distance from a teacher, cost."""
    out = screen(as_json)
    asked = {"split": split, "teacher": teacher, "limit": limit, "max-new-tokens": max_new_tokens}
    asked |= {"verify": verify, "threads": threads, "samples": samples}
    asked |= {"vllm-python": str(vllm_python) if vllm_python else None}
    words = [f"--{name}={value}" for name, value in asked.items() if value is not None]
    words += ["--vllm"] if vllm else []
    named = ["evaluate", "--model", model, "--dataset", str(dataset), *words]
    found = run_trainer(named, "The evaluation", lambda event: _heard(event, out))
    if as_json:
        out.document(found)
        return
    out.console.print(draw(found))
    if found["samples"]:
        out.console.print(draw_samples(found["samples"]))
    for line in notes(found):
        out.say(line)


def draw(found: dict[str, Any]) -> Table:
    """A row for each figure, with its interval."""
    table = Table("figure", "value", "95% interval")
    for name, (title, decimals) in FIGURES.items():
        figure = found[name]
        if figure is not None:
            value, low, high = (f"{figure[key]:.{decimals}f}" for key in ("value", "low", "high"))
            table.add_row(title, value, f"{low} to {high}")
    table.add_row("parameters", f"{found['parameters']:,}", "")
    table.add_row("bytes of weights", f"{found['weight_bytes']:,}", "")
    table.add_row("peak memory, bytes", f"{found['peak_memory_bytes']:,}", "")
    table.add_row("generated tokens/s", f"{found['tokens_per_s']:,.0f}", "")
    for speed in filter(None, (found["speed"], found["vllm"])):
        decode = speed["decode_tokens_per_s"]
        prefill = f"{speed['prefill_tokens_per_s']:,.0f}"
        table.add_row(f"prefill tokens/s, {speed['engine']}", prefill, "")
        said = "-" if decode is None else f"{decode:,.0f}"
        table.add_row(f"decode tokens/s, {speed['engine']}", said, "")
    return table


def draw_samples(samples: list[dict[str, Any]]) -> Table:
    """A row for each prompt, the answers side by side; text is never taken for markup."""
    teacher = any(sample["teacher"] is not None for sample in samples)
    columns = ["prompt", "dataset", "model", *(["teacher"] if teacher else [])]
    table = Table(*columns, show_lines=True)
    for sample in samples:
        table.add_row(*(Text(_short(sample[column] or "")) for column in columns))
    return table


def _short(words: str) -> str:
    return words if len(words) <= SHOWN else f"{words[:SHOWN]} …"


def notes(found: dict[str, Any]) -> list[str]:
    """What a reader of the figures must know."""
    lines = [f"{found['rows']} rows of the {found['split']} split; intervals resample rows."]
    if found["left_out"]:
        lines.append(f"{found['left_out']} rows are longer than the model holds and left out.")
    if found["unfinished"]:
        lines.append(f"{found['unfinished']} rows were cut off by their token limit and left out.")
    if found["cut"]:
        lines.append(f"{found['cut']} answers met the limit of new tokens and count as they stood.")
    if found["uncompared"]:
        lines.append(f"{found['uncompared']} answers broke the verifier and count as wrong.")
    titles = {name: title for name, (title, _) in FIGURES.items()}
    return [
        *lines,
        *(f"not measured: {titles[name]} ({why})" for name, why in found["why"].items()),
    ]


def _heard(event: dict[str, Any], out: Screen) -> None:
    if event["event"] == "phase":
        out.say(f"{event['name']}: {event['detail']}")
