"""Generated tokens a second of a whole job, beside a bare loop that keeps the same vLLM full.

A job is all of it: API, Celery, vLLM, published dataset. The bundled demo teacher writes out the
steps of its stories; how long its answers are stands in the growth. Results under batching are not
bit-stable on a CPU, so both sides must have heard as many answers, and as many tokens within 2%.
distilabel, where it is installed, is asked for the fewest rows; its tokens are counted by
characters, of which the bare loop's answers to the same have as many within 2%.
"""

import functools
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import asking, distilabel_peer, stack
from benchmarks.result import Result

LEAST_OF_BARE, LEAST_OF_PEER = 0.97, 1.5
TARGET = f">= {LEAST_OF_BARE} x a bare loop on the same server, >= {LEAST_OF_PEER} x distilabel"
DEMO = Path(__file__).resolve().parent.parent / "examples" / "demo"
ASKED = " Think step by step."
SAMPLING = {"temperature": 0.0, "max_tokens": 96}
TOLERANCE = 0.02


def run(quick: bool) -> Result:
    """Ratio at the most rows; growth over rows, with what the engine itself takes."""
    sizes = (48,) if quick else (500, 2_000, 4_000)
    model = DEMO / "models" / "teacher"
    with tempfile.TemporaryDirectory() as folder, stack.running(Path(folder), model) as up:
        asking.ask_all(up.teacher_url, "t", prompts(asking.WINDOW), SAMPLING)  # It compiles.
        growth = [measure(up, rows, 1 if quick else 3) for rows in sizes]
        first, last = growth[0], growth[-1]
        beside = functools.partial(beside_distilabel, up)
        faster = distilabel_peer.stand_beside(first, beside, LEAST_OF_PEER)
    return Result(
        name="teacher",
        ours=last["ours"],
        unit="generated tokens/s",
        ratio=last["ratio"],
        target=TARGET,
        met=last["ratio"] >= LEAST_OF_BARE and faster,
        peer=first.get("distilabel"),
        limit=last["bare"],
        growth=growth,
    )


def measure(up: stack.Stack, rows: int, rounds: int) -> dict[str, float]:
    """Medians over interleaved rounds."""
    seeds = up.upload(f"seeds-{rows}.jsonl", "\n".join(_lines(rows)))
    ours, bare, cpu_ms = [], [], []
    lengths: list[int] = []
    for _ in range(rounds):
        begun = time.perf_counter()
        heard = asking.ask_all(up.teacher_url, "t", prompts(rows), SAMPLING)
        bare.append(heard.completion_tokens / (time.perf_counter() - begun))
        before = up.worker_cpu_s()
        seconds, job = up.build(_spec(seeds))
        cpu_ms.append(1e3 * (up.worker_cpu_s() - before) / rows)
        ours.append(job["result"]["completion_tokens"] / seconds)
        require_equal(job["result"], heard, rows)
        lengths = heard.lengths
    ratios = [a / b for a, b in zip(ours, bare, strict=True)]
    return {
        "rows": rows,
        "ours": statistics.median(ours),
        "bare": statistics.median(bare),
        "ratio": statistics.median(ratios),
        "tokens_median": float(np.median(lengths)),
        "tokens_p90": float(np.percentile(lengths, 90)),
        "log_tokens_sd": float(np.std(np.log(lengths))),
        "worker_cpu_ms_a_row": statistics.median(cpu_ms),
        "worker_rss_mib": up.worker_rss_mib(),
    }


def beside_distilabel(up: stack.Stack, rows: int) -> float:
    """Generated tokens a second of its pipeline on the same server."""
    heard = asking.ask_all(up.teacher_url, "t", prompts(rows), SAMPLING)
    made = distilabel_peer.ask_all(up.teacher_url, "t", prompts(rows), SAMPLING, asking.WINDOW)
    off = abs(made.characters / heard.characters - 1)
    if made.answers != rows or off > TOLERANCE:
        raise AssertionError(f"distilabel made {made.answers} of {rows} rows, {off:.1%} off")
    return heard.completion_tokens / made.seconds


def prompts(rows: int) -> list[str]:
    """What is asked, as the build's template writes it."""
    return [json.loads(line)["question"] + ASKED for line in _lines(rows)]


def _lines(rows: int) -> list[str]:
    return (DEMO / "data" / "cot.seeds.jsonl").read_text("utf-8").splitlines()[:rows]


def _spec(seeds: str) -> dict[str, Any]:
    return {
        "kind": "if",
        "teacher": "t",
        "seeds": seeds,
        "template": "{{ question }}" + ASKED,
        "sampling": SAMPLING,
        "max_in_flight": asking.WINDOW,
        "deduplicate": False,
    }


def require_equal(result: dict[str, Any], heard: asking.Heard, rows: int) -> None:
    """Both sides asked as often and were told as much. Raises AssertionError."""
    off = abs(result["completion_tokens"] - heard.completion_tokens) / heard.completion_tokens
    if not (result["requests"] == heard.answers == rows and off <= TOLERANCE):
        raise AssertionError(f"the two sides did other work: {off:.1%} of the tokens differ")
