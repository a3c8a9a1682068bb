"""A real vLLM with the demo's models, and committed recipes as jobs that ask it."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from prompts.dataset import open_signal, read_manifest
from prompts.record import Record, Rejected
from prompts.signal import TopKRow
from service import jobs
from service.cli.recipes import FILE_FIELDS, read_recipe
from service.site import Site
from service.spec import job_spec
from service.tables import State
from tests.conftest import ROOT
from tests.workers.conftest import dataset_of, get_job, rows_of, run_build, wait_for
from tests.workers.test_rescore import records
from trainer.compress.vllm_server import find_engine
from workers import build
from workers.adopt import ledger_folder
from workers.ledger import read_entries
from workers.vllm_server import ServerPlan, VllmServer, free_port
from workers.watch import Watch, free_stale_chunks, free_stale_jobs

RECIPES = ROOT / "examples" / "recipes"
MODELS = ROOT / "examples" / "demo" / "models"
START_S = 600.0
WORKER = """
import sys
from service.settings import load
from service.site import open_site
from workers import build
from workers.watch import Watch
site = open_site(load())
build.run(site, sys.argv[1], Watch(site.settings.lease_s))
"""


@dataclass
class Served:
    """vLLM at one port, with one model or another under one name."""

    folder: Path
    port: int = field(default_factory=free_port)
    server: VllmServer | None = None

    def start(self, model: str) -> None:
        engine = find_engine()
        assert engine is not None
        log = self.folder / f"{model}.log"
        plan = ServerPlan(engine, str(MODELS / model), "demo-teacher", self.port, log)
        self.server = VllmServer(plan)
        wait_for(self._ready, START_S)

    def _ready(self) -> bool:
        assert self.server is not None
        assert self.server.ended() is None, self.server.last_words(20)
        return self.server.answers(5.0)

    def kill(self) -> None:
        assert self.server is not None
        self.server.kill()

    @property
    def finished(self) -> int:
        """Requests that were answered to their end, as vLLM counts them."""
        counted = r'request_success_total\{.*finished_reason="(?:stop|length)".*\} (\S+)'
        return sum(int(float(figure)) for figure in re.findall(counted, self._metrics()))

    @property
    def running(self) -> int:
        found = re.findall(r"num_requests_running\{.*\} (\S+)", self._metrics())
        return sum(int(float(figure)) for figure in found)

    def _metrics(self) -> str:
        url = f"http://127.0.0.1:{self.port}/metrics"
        return httpx.get(url, trust_env=False, timeout=30).raise_for_status().text


def submitted(site: Site, recipe: str, *changes: str, **given: str) -> str:
    """The job of a committed recipe with `--set` changes; `given`: files in place of its own."""
    spec = read_recipe(RECIPES / f"{recipe}.yaml", list(changes)).spec
    for place in FILE_FIELDS:
        part, _, name = place.rpartition(".")
        if part == "build" and name in spec["build"] and name not in given:
            path = (RECIPES / spec["build"][name]).resolve()
            given[name] = kept_file(site, path.name, path.read_text())
    spec["build"] |= given
    return jobs.submit(site, job_spec.validate_python(spec)).id


def kept_file(site: Site, name: str, text: str) -> str:
    path = site.settings.data_dir / name
    path.write_text(text)
    with site.sessions.writing.begin() as session:
        return site.store.publish(session, "file", name, path, summary={}, inputs=[]).id


def run(site: Site, job_id: str) -> None:
    run_build(site, job_id)


def succeeded(site: Site, job_id: str) -> list[Record | Rejected]:
    """All rows, each of which ended once."""
    job = get_job(site, job_id)
    assert job.state == State.SUCCEEDED, (job.state, job.reason, job.detail)
    rows = rows_of(dataset_of(site, job_id))
    assert (
        len({row.id for row in rows})
        == len(rows)
        == read_manifest(dataset_of(site, job_id)).counts.seeds
    )
    return rows


def kept_calls(site: Site, job_id: str) -> Counter[int]:
    """How many finished calls of each step the ledger holds."""
    calls: Counter[int] = Counter()
    for chunk in ledger_folder(site.store.root, job_id).glob("[0-9]*"):
        calls.update(e.call.step for entries in read_entries(chunk).values() for e in entries)
    return calls


def seed_rows(count: int) -> list[dict[str, Any]]:
    seeds = ROOT / "examples" / "demo" / "data" / "cot.seeds.jsonl"
    return [json.loads(line) for line in seeds.read_text().splitlines()[:count]]


def hard_seeds(count: int) -> str:
    """Seeds with wrong gold answers: every row comes to its hint."""
    wrong = [row | {"answer": str(int(row["answer"]) + 1)} for row in seed_rows(count)]
    return "".join(json.dumps(row) + "\n" for row in wrong)


def start_worker(site: Site, job_id: str) -> "subprocess.Popen[bytes]":
    """A process that works on the job, to be killed."""
    settings = site.settings
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "RETORT_DATA_DIR": str(settings.data_dir),
        "RETORT_LEASE_S": str(settings.lease_s),
        "RETORT_MIN_FREE_BYTES": "0",
    }
    return subprocess.Popen([sys.executable, "-c", WORKER, job_id], env=environment)


def taken_over(site: Site, job_id: str, watch: Watch) -> bool:
    """A look as the tick's; True once the job is done."""
    with site.sessions.writing() as session:
        free_stale_chunks(session, watch)
        free_stale_jobs(session, watch)
    build.run(site, job_id, watch)
    return get_job(site, job_id).state == State.SUCCEEDED


def compared(generated: Path, scored: Path) -> dict[str, float]:
    """How far the two signals are from each other, over tokens and entries that both keep.

    bfloat16 activations under other batches differ in their last bits, so the eighth likeliest
    token of one may be the ninth of the other.
    """
    nats: list[float] = []
    same = tokens = rows = 0
    with open_signal(generated) as one, open_signal(scored) as other:
        for name in records(scored):
            ours, theirs = other.read(name), one.read(name)
            assert isinstance(ours, TopKRow)
            assert isinstance(theirs, TopKRow)
            assert ours.token_ids.tolist() == theirs.token_ids.tolist()
            rows, tokens = rows + 1, tokens + len(ours.token_ids)
            for place in range(len(ours.token_ids)):
                mine = dict(zip(ours.ids[place].tolist(), ours.logprobs[place], strict=True))
                given = dict(zip(theirs.ids[place].tolist(), theirs.logprobs[place], strict=True))
                same += mine.keys() == given.keys()
                nats += [
                    abs(mine[i] - given[i]) for i in mine.keys() & given.keys() if mine[i] > -4
                ]
    return {
        "rows": rows,
        "tokens": tokens,
        "median_nats": float(np.median(nats)),
        "share_same_set": same / tokens,
    }
