"""The whole chain over REST against the embedded stack: real Redis, Celery and vLLM.

What is asserted: every part did its work on the artifacts of the part before it. How good the
student gets is the demo's business (`make demo`), with more rows and more steps.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import httpx
import pytest

from tests.conftest import ROOT

DEMO = ROOT / "examples" / "demo"
SEEDS = 48
START_LIMIT_S = 120
CHAIN_LIMIT_S = 900

pytestmark = [pytest.mark.servers, pytest.mark.vllm, pytest.mark.slow]


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A running stack in a data directory of its own."""
    data = tmp_path_factory.mktemp("chain")
    command = [sys.executable, "-m", "workers.supervisor", "--data-dir", str(data), "--port", "0"]
    with (data / "up.log").open("wb") as log:
        stack = subprocess.Popen(command, stdout=log, stderr=log, cwd=data)
    try:
        with httpx.Client(base_url=wait_until_up(stack, data), timeout=60) as client:
            yield client
    finally:
        stack.send_signal(signal.SIGINT)
        stack.wait(timeout=60)


def wait_until_up(stack: "subprocess.Popen[bytes]", data: Path) -> str:
    """The API's URL."""
    until = time.monotonic() + START_LIMIT_S
    while time.monotonic() < until and stack.poll() is None:
        runtime = data / "runtime.json"
        if runtime.exists() and (found := json.loads(runtime.read_text()))["ready"]:
            return str(found["url"])
        time.sleep(0.2)
    raise AssertionError((data / "up.log").read_text())


def upload(api: httpx.Client, lines: list[bytes], name: str, purpose: str) -> str:
    """The id of an uploaded file."""
    answer = api.post(
        "/api/v1/files", params={"name": name, "purpose": purpose}, content=b"\n".join(lines)
    )
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def recipe(seeds: str, evaluation: str) -> dict[str, Any]:
    """The demo's chain with all four kinds of stage, cut down to what shows that it works."""
    optimization = {"max_steps": 4, "batch_size": 8, "checkpoint_steps": 2, "eval_steps": 2}
    never = {"max_accuracy_drop": None}
    stages = [
        {"kind": "wanda", "sparsity": 0.3},
        {"kind": "depth", "on": "start", "heal": {"optimization": optimization}},
        {"kind": "svd", "on": "start", "parameter_ratio": 0.8},
        {"kind": "ptq", "on": "start"},
    ]
    return {
        "kind": "recipe",
        "name": "small-chain",
        "serve": {"kind": "serve", "model": str(DEMO / "models" / "teacher"), "name": "small"},
        "build": {
            "kind": "cot",
            "teacher": "small",
            "seeds": seeds,
            "template": "{{ question }} Think step by step.",
            "sampling": {"max_tokens": 96},
            "verify": "none",
        },
        "train": {
            "method": "rationale_then_answer",
            "student": str(DEMO / "models" / "student-base"),
            "optimization": optimization,
        },
        "compress": {
            "stages": [stage | {"gate": never, "calibration_rows": 16} for stage in stages]
        },
        "evaluate": {"data": evaluation, "limit_per_skill": 8, "max_new_tokens": 64},
    }


def follow(api: httpx.Client, job: str) -> dict[str, Any]:
    """The job when it has ended."""
    until = time.monotonic() + CHAIN_LIMIT_S
    while time.monotonic() < until:
        found: dict[str, Any] = api.get(f"/api/v1/jobs/{job}").json()
        if found["state"] in ("succeeded", "failed", "cancelled"):
            return found
        time.sleep(1)
    raise AssertionError(f"still {found['state']}: {json.dumps(found['children'], indent=1)}")


@pytest.mark.timeout(CHAIN_LIMIT_S + 180)
def test_a_recipe_becomes_a_smaller_model_and_a_report(api: httpx.Client) -> None:
    seeds = (DEMO / "data" / "cot.seeds.jsonl").read_bytes().splitlines()[:SEEDS]
    rows = (DEMO / "data" / "evaluation.jsonl").read_bytes().splitlines()
    spec = recipe(
        upload(api, seeds, "seeds.jsonl", "seeds"),
        upload(api, rows, "evaluation.jsonl", "evaluation"),
    )
    job = follow(api, api.post("/api/v1/jobs", json=spec).raise_for_status().json()["id"])
    assert job["state"] == "succeeded", json.dumps(job, indent=1)
    parts = {child["part"]: child for child in job["children"]}
    assert list(parts) == ["serve", "build", "train", "compress", "report"]

    built = parts["build"]["result"]
    assert built["accepted"] + built["rejected"] + built["not_needed"] == SEEDS
    dataset = api.get(f"/api/v1/datasets/{built['dataset']}").json()
    loaded = datasets.load_dataset(dataset["location"], cache_dir=os.environ.get("HF_CACHE"))
    assert sum(len(split) for split in loaded.values()) == built["accepted"]

    models = parts["compress"]["result"]["models"]
    assert len(models) == 4
    sizes = [api.get(f"/api/v1/models/{model}").json()["bytes"] for model in models]
    student = api.get(f"/api/v1/models/{parts['train']['result']['model']}").json()["bytes"]
    assert all(size < student for size in sizes[1:]), (student, sizes)

    report = api.get(f"/api/v1/reports/{job['result']['report']}/report.json").raise_for_status()
    chain = report.json()
    stages = [row["stage"] for row in chain["chain"]["models"] if row["stage"]]
    served = {stage["kind"]: stage["serving"] for stage in stages if stage["serving"]}
    assert set(served) == {"svd", "ptq"}
    for comparison in served.values():
        assert comparison["prompts"] >= 8
        assert comparison["mean_logprob_difference"] <= 0.05, comparison
