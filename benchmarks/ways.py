"""What a way of asking is worth: the demo teacher on real vLLM, by the committed recipes.

Self-consistency over eight samples beside a single sample: how many of the accepted rows are right
(the gold answers are in the seeds, and the build is not told). Demonstrations that are like the
query, by BM25, by embeddings and by maximal marginal relevance, beside random and label-balanced
ones: how many queries are answered right. The embeddings are the demo teacher's own, pooled by a
vLLM that is up before.
"""

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

from benchmarks import stack
from benchmarks.peer import NoPeerError
from benchmarks.result import Result
from prompts.dataset import read_rejected, read_rows
from prompts.record import Record, Rejected
from prompts.split import SPLITS
from prompts.verify import same_number
from service.addresses import API
from service.cli.recipes import FILE_FIELDS, read_recipe
from service.settings import load
from trainer.compress.vllm_server import find_engine
from trainer.measurement import wilson
from workers import keeper
from workers.vllm_server import ServerPlan, command, environment, free_port

ROOT = Path(__file__).resolve().parent.parent
RECIPES = ROOT / "examples" / "recipes"
MODEL = ROOT / "examples" / "demo" / "models" / "teacher"
TARGET = "voted answers right more often than single ones; similar demonstrations than random ones"
READY_S, GRACE_S = 600.0, 10.0
EMBEDDER = "embedder"
VOTES = {"single sample": "build-single-sample", "self-consistency": "build-self-consistency"}
SELECTORS: dict[str, tuple[str, Any]] = {
    "random": ("build-random", "random"),
    "label_balanced": ("build-random", "label_balanced"),
    "bm25": ("build-similar", "bm25"),
    "embedding": ("build-similar", {"kind": "embedding", "embedder": EMBEDDER}),
    "mmr": ("build-similar", {"kind": "mmr", "embedder": EMBEDDER, "relevance": 0.7}),
}
UNASKED = frozenset({"too_few_demonstrations", "contaminated"})

Row = Record | Rejected


def run(quick: bool) -> Result:
    """Shares of right answers with their 95% intervals; `growth` has a line for each way."""
    found = measure(40 if quick else 200)
    single, voted = found["single sample"], found["self-consistency"]
    random, similar = found["random"], found["embedding"]
    return Result(
        name="ways",
        ours=voted["right"],
        unit="of the rows accepted by vote are right; the peer is a single sample",
        ratio=voted["right"] / single["right"],
        target=TARGET,
        met=voted["right"] > single["right"] and similar["right"] > random["right"],
        peer=single["right"],
        growth=[
            {f"{name}: {what}": value for what, value in line.items()}
            for name, line in found.items()
        ],
    )


def measure(limit: int) -> dict[str, dict[str, float]]:
    """By way: rows asked and accepted, the share that is right, the ends of its interval."""
    with (
        tempfile.TemporaryDirectory() as folder,
        embedder(Path(folder)) as url,
        stack.running(Path(folder), MODEL) as up,
    ):
        facts = {"name": EMBEDDER, "base_url": url, "served_model": EMBEDDER}
        sent = up.api.post(f"{API}/teachers", params={"check": False}, json=facts)
        sent.raise_for_status()
        found = {}
        for name, recipe in VOTES.items():
            found[name] = voted(built(up, spec_of(recipe, limit)))
        for name, (recipe, selector) in SELECTORS.items():
            # Two queries may get the same answer; here each one counts.
            changes = {"selector": selector, "deduplicate": False}
            found[name] = answered(built(up, spec_of(recipe, limit) | changes))
        return found


def voted(rows: list[Row]) -> dict[str, float]:
    """How many of the accepted rows have their seed's answer."""
    kept = [row for row in rows if isinstance(row, Record)]
    right = sum(same_number(row.answer or "", str(json.loads(row.seed)["answer"])) for row in kept)
    return figures(len(rows), len(kept), right, len(kept))


def answered(rows: list[Row]) -> dict[str, float]:
    """How many of the queries that were asked were answered right: the others are rejected."""
    asked = [row for row in rows if isinstance(row, Record) or row.reason not in UNASKED]
    right = sum(isinstance(row, Record) for row in asked)
    return figures(len(asked), right, right, len(asked))


def figures(asked: int, accepted: int, right: int, of: int) -> dict[str, float]:
    """A line of the table."""
    if not of:
        raise AssertionError("no row was accepted: there is nothing to compare")
    share = wilson(right, of)
    return {
        "asked": asked,
        "accepted": accepted,
        "right": share.share,
        "low": share.low,
        "high": share.high,
    }


def spec_of(recipe: str, limit: int | None) -> dict[str, Any]:
    """The build of a committed recipe; its files are still paths, relative to the recipe. Without a
    limit it keeps its own."""
    build: dict[str, Any] = read_recipe(RECIPES / f"{recipe}.yaml", []).spec["build"]
    return build | {"teacher": "t"} | ({} if limit is None else {"limit": limit})


def built(up: stack.Stack, build: dict[str, Any]) -> list[Row]:
    """All rows of the dataset that a build makes."""
    return built_by(up, build)[1]


def built_by(up: stack.Stack, build: dict[str, Any]) -> tuple[str, list[Row]]:
    """The id of the job of a build, and all rows of its dataset."""
    fields = {name.removeprefix("build.") for name in FILE_FIELDS} & build.keys()
    files = {name: (RECIPES / build[name]).resolve() for name in fields}
    sent = {name: up.upload(path.name, path.read_text()) for name, path in files.items()}
    _, job = up.build(build | sent)
    dataset = up.data_dir / "artifacts" / "dataset" / job["result"]["dataset"]
    accepted = [row for split in SPLITS for row in read_rows(dataset, split)]
    return str(job["id"]), [*accepted, *read_rejected(dataset)]


@contextmanager
def embedder(folder: Path) -> Iterator[str]:
    """The URL of the demo teacher as a server of embeddings, until the block ends."""
    engine = find_engine(load().vllm_python)
    if engine is None:
        raise NoPeerError("there is no vLLM here: run `make setup`, or name RETORT_VLLM_PYTHON")
    log = folder / "embedder.log"
    plan = ServerPlan(engine, str(MODEL), EMBEDDER, free_port(), log)
    pooling = ["--runner", "pooling", "--convert", "embed"]
    with log.open("wb") as out:
        kept = keeper.command([*command(plan), *pooling], os.getpid(), GRACE_S)
        process = subprocess.Popen(
            kept, env=environment(plan), stdout=out, stderr=out, start_new_session=True
        )
    try:
        _wait(plan, process)
        yield plan.base_url
    finally:
        process.terminate()
        process.wait(60 + GRACE_S)


def _wait(plan: ServerPlan, process: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + READY_S
    body = {"model": plan.name, "input": ["a"]}
    while time.monotonic() < until and process.poll() is None:
        with suppress(httpx.TransportError):  # It doesn't listen yet.
            if httpx.post(f"{plan.base_url}/embeddings", json=body, timeout=60).is_success:
                return
        time.sleep(0.5)
    raise TimeoutError(f"no embeddings from vLLM: {plan.log.read_text()[-2000:]}")
