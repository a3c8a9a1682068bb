"""What a shared beginning saves: an in-context job whose rows have the same demonstrations, beside
the same job with other demonstrations for each row, on a vLLM with its prefix cache.

The limit is the gain of a bare loop over the very same prompts, one request first where they share
their beginning. The model's weights are random: prefilling costs what it costs whatever they hold.
Every job draws demonstrations of its own, so none finds another's in the cache.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from shutil import copy
from typing import Any

from benchmarks import asking, stack
from benchmarks.result import Result
from prompts.plan import TeacherFacts, make_plan
from prompts.record import Seed
from prompts.spec import IclBuild

LEAST_OF_IDEAL = 0.9
MOST_GROWTH = 1.1
TARGET = (
    f">= {LEAST_OF_IDEAL} x the bare loop's gain; <= {MOST_GROWTH} x the wall time from 2 to 16"
    " demonstrations"
)
TOKENIZER = Path(__file__).resolve().parent.parent / "examples" / "demo" / "models" / "teacher"
SHOWN = 16
DEMONSTRATION_TOKENS = 90
SAMPLING = {"temperature": 0.0, "max_tokens": 2}


def run(quick: bool) -> Result:
    """Ratio of the gains at 16 demonstrations, about 1,500 tokens; growth over demonstrations."""
    rows, rounds = (24, 1) if quick else (256, 3)
    with tempfile.TemporaryDirectory() as folder:
        model = random_model(Path(folder) / "model", width=64 if quick else 512)
        with stack.running(Path(folder), model) as up:
            jobs = Jobs(up, rows)
            growth = [measure(jobs, shown, rounds) for shown in (2, SHOWN)]
    first, last = growth
    return Result(
        name="prefix",
        ours=last["gain"],
        unit="x faster with a shared beginning",
        ratio=last["ratio"],
        target=TARGET,
        met=last["ratio"] >= LEAST_OF_IDEAL and last["shared_s"] <= MOST_GROWTH * first["shared_s"],
        limit=last["bare_gain"],
        growth=growth,
    )


def measure(jobs: "Jobs", shown: int, rounds: int) -> dict[str, float]:
    """Medians over interleaved rounds; what shares nothing takes minutes, and is asked once."""
    found: dict[str, list[float]] = {}
    for fixed, name, times in (("per_group", "shared", rounds), ("per_row", "shuffled", 1)):
        for _ in range(times):
            found.setdefault(f"{name}_s", []).append(jobs.ours(shown, fixed))
            found.setdefault(f"bare_{name}_s", []).append(jobs.bare(shown, fixed))
    medians = {name: statistics.median(seconds) for name, seconds in found.items()}
    gain = medians["shuffled_s"] / medians["shared_s"]
    limit = medians["bare_shuffled_s"] / medians["bare_shared_s"]
    return {
        "demonstrations": shown,
        **medians,
        "gain": gain,
        "bare_gain": limit,
        "ratio": gain / limit,
    }


class Jobs:
    """Both sides' runs over the same rows; each takes the next draw of demonstrations."""

    def __init__(self, up: stack.Stack, rows: int) -> None:
        self._up = up
        self._draws = count()
        self._seeds, self._pool = list(seeds(rows)), list(pool())
        self._files = [
            up.upload(name, "\n".join(json.dumps(row) for row in lines))
            for name, lines in (("seeds.jsonl", self._seeds), ("pool.jsonl", self._pool))
        ]

    def ours(self, shown: int, fixed: str) -> float:
        """Seconds of a job."""
        seconds, job = self._up.build(self._spec(shown, fixed))
        if job["result"]["requests"] != len(self._seeds):
            raise AssertionError(f"the job asked {job['result']['requests']} times")
        return seconds

    def bare(self, shown: int, fixed: str) -> float:
        """Seconds of a bare loop over the prompts that such a job asks."""
        texts = prompts_of(self._spec(shown, fixed), self._seeds, self._pool)
        url = self._up.teacher_url
        begun = time.perf_counter()
        if fixed == "per_group":
            asking.ask_all(url, "t", texts[:1], SAMPLING)
            texts = texts[1:]
        asking.ask_all(url, "t", texts, SAMPLING)
        return time.perf_counter() - begun

    def _spec(self, shown: int, fixed: str) -> dict[str, Any]:
        return spec_of(self._files, next(self._draws), shown, fixed)


def spec_of(files: list[str], draw: int, shown: int, fixed: str) -> dict[str, Any]:
    """The build; `files` are seeds and pool."""
    return {
        "kind": "icl",
        "teacher": "t",
        "seeds": files[0],
        "pool": files[1],
        "demonstrations": shown,
        "fixed": fixed,
        "selector_seed": draw,
        "sampling": SAMPLING,
        "max_in_flight": asking.WINDOW,
    }


def prompts_of(spec: dict[str, Any], rows: list[Seed], examples: list[Seed]) -> list[str]:
    """What such a job asks."""
    plan = make_plan(IclBuild.model_validate(spec), examples, TeacherFacts("t"))
    steps = [plan.next(row, []) for row in rows]
    return [step[0].messages[-1].content for step in steps if isinstance(step, tuple)]


def seeds(rows: int) -> Iterator[Seed]:
    """Queries, all different and short."""
    for number in range(rows):
        yield {"id": f"q{number}", "input": " ".join(f"{number:04d}"), "output": "1"}


def pool() -> Iterator[Seed]:
    """Demonstrations of about `DEMONSTRATION_TOKENS` tokens: a digit is one."""
    for number in range(256):
        digits = f"{number:03d}" * (DEMONSTRATION_TOKENS // 3 - 2)
        yield {"id": f"d{number}", "input": " ".join(digits), "output": "2"}


def random_model(place: Path, width: int) -> Path:
    """A Llama with random weights, the demo's tokenizer and room for 4,096 tokens."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=1280,
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=4,
        num_attention_heads=width // 32,
        num_key_value_heads=width // 32,
        head_dim=32,
        max_position_embeddings=4096,
        eos_token_id=4,
        pad_token_id=0,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(str(place))
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        copy(TOKENIZER / name, place / name)
    return place
