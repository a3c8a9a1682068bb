"""`make demo`: the recipe beside this file, over REST, Celery and real vLLM, and a verdict on it.

Interrupted at any point, it goes on where it was when it is run again. Exits with 1 if the chain
fails or the student did not learn what it was to learn.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from service import runtime
from trainer.report.chain import Chain
from trainer.report.table import summary_table, verdict

HERE = Path(__file__).parent
RECIPE = HERE / "recipe.yaml"
SKILL = "cot"
FREE_BYTES = 2 * 2**30
UNFINISHED = ("queued", "running")
# Wide enough for the table also where the output goes to a file, which has no width.
console = Console(highlight=False, width=max(shutil.get_terminal_size().columns, 120))


def main() -> int:
    """Bring the stack up, run the chain, show what came of it, bring the stack down."""
    parser = argparse.ArgumentParser(description="Run the demo.")
    parser.add_argument("--data-dir", type=Path, default=HERE.parent.parent / ".demo")
    data = parser.parse_args().data_dir.absolute()
    if problem := obstacle(data.parent):
        console.print(f"make demo: {problem}", style="red")
        return 1
    os.environ["RETORT_DATA_DIR"] = str(data)
    begun = time.monotonic()
    was_up = is_up(data)
    try:
        if not was_up and retort("up", "--detach"):
            return 1
        return run(data, begun)
    except KeyboardInterrupt:
        console.print("\nStopped. `make demo` goes on from here; `rm -r .demo` starts afresh.")
        return 130
    finally:
        if not was_up:
            retort("down")


def obstacle(folder: Path) -> str | None:
    """What would stop the demo later, found before anything is spent."""
    for model in ("teacher", "student-base"):
        if not (HERE / "models" / model / "model.safetensors").exists():
            return (
                f"examples/demo/models/{model} is incomplete: check the clone, or train it with "
                f"`python -m examples.demo.train {model}`."
            )
    free = shutil.disk_usage(folder).free
    if free < FREE_BYTES:
        return f"{free / 2**30:.1f} GiB free at {folder}; the demo needs {FREE_BYTES / 2**30:.0f}."
    return None


def is_up(data: Path) -> bool:
    """Whether a stack runs on this data directory already."""
    found = runtime.read(data)
    return found is not None and runtime.alive(found)


def retort(*arguments: str) -> int:
    """Run the command line as a user would; its exit code."""
    return subprocess.run([str(Path(sys.executable).with_name("retort")), *arguments]).returncode


def run(data: Path, begun: float) -> int:
    """Run or go on with the chain; 0 if it did what it promises."""
    found = runtime.read(data)
    if found is None:
        console.print("make demo: the stack went down again; see .demo/logs", style="red")
        return 1
    with httpx.Client(base_url=found.url, timeout=60) as api:
        started = unfinished(api)
        if started:
            console.print(f"going on with {started}, which was interrupted")
            retort("watch", started)
        else:
            retort("run", str(RECIPE), "--follow")
        return conclude(api, begun)


def unfinished(api: httpx.Client) -> str | None:
    """The demo's job that an earlier run left, if there is one."""
    jobs = api.get("/api/v1/jobs", params={"kind": "recipe"}).raise_for_status().json()["jobs"]
    return next((j["id"] for j in jobs if j["name"] == "demo" and j["state"] in UNFINISHED), None)


def conclude(api: httpx.Client, begun: float) -> int:
    """Show times, table and verdict of the newest chain."""
    jobs = api.get("/api/v1/jobs", params={"kind": "recipe"}).raise_for_status().json()["jobs"]
    newest = next((j["id"] for j in jobs if j["name"] == "demo"), None)
    if newest is None:
        return 1
    job = api.get(f"/api/v1/jobs/{newest}").raise_for_status().json()
    if job["state"] in UNFINISHED:
        return 130
    if job["result"].get("report") is None:
        console.print(f"make demo: {job['state']}: {job['reason']}: {job['detail']}", style="red")
        return 1
    report = api.get(f"/api/v1/reports/{job['result']['report']}").raise_for_status().json()
    facts = json.loads((Path(report["location"]) / "report.json").read_text())
    chain = Chain.model_validate(facts["chain"])
    show_table(chain)
    show_times(job, begun)
    show_places(api, job, report)
    judged = verdict(chain, SKILL)
    console.print(f"\n{judged.sentence}", style="green" if judged.passed else "red")
    if job["state"] != "succeeded":
        console.print(f"make demo: {job['reason']}: {job['detail']}", style="red")
    return 0 if judged.passed and job["state"] == "succeeded" else 1


def show_table(chain: Chain) -> None:
    """One row per model."""
    rows = summary_table(chain)
    table = Table(title="Accuracy on held-out problems, with 95% intervals")
    for title in rows[0]:
        table.add_column(title, justify="left" if title == "model" else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row.values())
    console.print(table)


def show_times(job: dict[str, Any], begun: float) -> None:
    """What each part took."""
    parts = ", ".join(
        f"{child['part']} {seconds(child):.0f} s"
        for child in job["children"]
        if child["started_at"] and child["finished_at"]
    )
    console.print(f"parts: {parts}; this run: {(time.monotonic() - begun) / 60:.1f} minutes")


def seconds(job: dict[str, Any]) -> float:
    """Wall time of a job."""
    start, end = (datetime.fromisoformat(job[key]) for key in ("started_at", "finished_at"))
    return (end - start).total_seconds()


def show_places(api: httpx.Client, job: dict[str, Any], report: dict[str, Any]) -> None:
    """Where things lie."""
    parts = {child["part"]: child["result"] for child in job["children"]}
    named = (
        ("dataset", "datasets", parts.get("build", {}).get("dataset")),
        ("student", "models", parts.get("train", {}).get("model")),
        ("smallest", "models", parts.get("compress", {}).get("model")),
    )
    for name, kind, one in named:
        if one is not None:
            console.print(f"{name:<8} {api.get(f'/api/v1/{kind}/{one}').json()['location']}")
    console.print(f"report   {report['location']}/report.html")


if __name__ == "__main__":
    sys.exit(main())
