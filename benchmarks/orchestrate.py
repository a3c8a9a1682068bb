"""Rows a second from submit to a published dataset, beside a bare loop on the same stub teacher.

The stub answers at once, so what is measured is what the engine itself costs: ledger, leases,
checks, chunks, assembly. Both sides must have heard the same answers. distilabel, where it is
installed, is asked for the fewest rows.
"""

import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from benchmarks import asking, distilabel_peer, stub
from benchmarks.result import Result
from prompts.dataset import read_manifest, read_rows
from prompts.spec import InstructionBuild
from prompts.split import SPLITS
from service import db, jobs
from service.disk import Written
from service.ids import make_id
from service.settings import Settings
from service.site import Site, open_site
from service.spec import BuildJob
from service.store import Upload
from service.tables import Artifact, Teacher
from workers import build
from workers.watch import Watch

LEAST_OF_BARE, LEAST_OF_PEER = 0.5, 5.0
ROWS_A_FILE = 10_000
TARGET = (
    f">= {LEAST_OF_BARE} x a bare loop, >= {LEAST_OF_PEER} x distilabel,"
    f" one file for {ROWS_A_FILE:,} rows"
)
SEEDS = '{{"id": "{0}", "instruction": "Say what {0} is, and nothing else."}}\n'


def run(quick: bool) -> Result:
    """Ratio to the bare loop at the most rows; growth over rows: the rate should be flat."""
    sizes = (500, 2_000) if quick else (2_000, 10_000, 100_000, 1_000_000)
    growth = [measure(rows, 1 if rows > 10_000 or quick else 3) for rows in sizes]
    first, last = growth[0], growth[-1]
    faster = distilabel_peer.stand_beside(first, beside_distilabel, LEAST_OF_PEER)
    few_files = last["files"] <= max(last["rows"] / ROWS_A_FILE, last["fewest_files"])
    return Result(
        name="orchestrate",
        ours=last["ours"],
        unit="rows/s",
        ratio=last["ratio"],
        target=TARGET,
        met=last["ratio"] >= LEAST_OF_BARE and few_files and faster,
        peer=first.get("distilabel"),
        limit=last["bare"],
        growth=growth,
    )


def measure(rows: int, rounds: int) -> dict[str, float]:
    """Medians over interleaved rounds."""
    ours, bare, files = [], [], 0
    with tempfile.TemporaryDirectory() as folder, stub.running(Path(folder)) as url:
        site = _site(Path(folder) / "data", url)
        for _ in range(rounds):
            begun = time.perf_counter()
            heard = asking.ask_all(url, stub.MODEL, prompts(rows), {"temperature": 0})
            bare.append(rows / (time.perf_counter() - begun))
            seeds = _upload(site, rows)
            begun = time.perf_counter()
            dataset = _build(site, seeds)
            ours.append(rows / (time.perf_counter() - begun))
            _check(dataset, heard, rows)
            files = sum(path.is_file() for path in dataset.rglob("*"))
        site.sessions.engine.dispose()
    ratios = [a / b for a, b in zip(ours, bare, strict=True)]
    return {
        "rows": rows,
        "ours": statistics.median(ours),
        "bare": statistics.median(bare),
        "ratio": statistics.median(ratios),
        "files": files,
        "fewest_files": len(SPLITS) + 4,
        "rss_mib": psutil.Process().memory_info().rss / 2**20,
    }


def beside_distilabel(rows: int) -> float:
    """Rows a second of its pipeline on the same stub."""
    with tempfile.TemporaryDirectory() as folder, stub.running(Path(folder)) as url:
        heard = asking.ask_all(url, stub.MODEL, prompts(rows), {"temperature": 0})
        made = distilabel_peer.ask_all(
            url, stub.MODEL, prompts(rows), {"temperature": 0}, asking.WINDOW
        )
    if (made.answers, made.digest) != (rows, heard.digest):
        raise AssertionError(f"distilabel heard {made.answers} of {rows} answers, or others")
    return rows / made.seconds


def prompts(rows: int) -> Iterator[str]:
    """What is asked, as the build's template writes it."""
    return (f"Say what {number} is, and nothing else." for number in range(rows))


def _site(data_dir: Path, url: str) -> Site:
    """An installation whose broker is away: this process is the worker."""
    site = open_site(Settings(data_dir=data_dir, min_free_bytes=0))
    db.upgrade(site.sessions.engine)
    with site.sessions.writing.begin() as session:
        probe = {"ok": True, "context_tokens": 4096}
        session.add(Teacher(name="t", base_url=url, served_model=stub.MODEL, probe=probe))
    return site


def _upload(site: Site, rows: int) -> str:
    path = site.store.root / "incoming" / make_id("file")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lines:
        lines.writelines(SEEDS.format(number) for number in range(rows))
    upload = Upload(path, "seeds.jsonl", Written(path.stat().st_size, "0" * 64))
    with site.sessions.writing.begin() as session:
        return site.store.keep(session, upload, {}).id


def _build(site: Site, seeds: str) -> Path:
    """Submit, ask, assemble; where the dataset lies."""
    spec = InstructionBuild.model_validate(
        {"kind": "if", "teacher": "t", "seeds": seeds, "max_in_flight": asking.WINDOW}
    )
    job_id = jobs.submit(site, BuildJob(kind="build", build=spec)).id
    build.run(site, job_id, Watch(site.settings.lease_s))
    with site.sessions.reading() as session:
        job = jobs.get(session, job_id)
        if "dataset" not in job.result:
            raise AssertionError(f"the build ended {job.state}: {job.detail}")
        return site.store.path(session.get_one(Artifact, job.result["dataset"]))


def _check(dataset: Path, heard: asking.Heard, rows: int) -> None:
    kept = asking.Heard()
    for split in SPLITS:
        for row in read_rows(dataset, split):
            kept.take(row.completion[-1].content, row.usage.completion_tokens)
    accepted = read_manifest(dataset).counts.accepted
    if not (kept.answers == accepted == heard.answers == rows and kept.digest == heard.digest):
        raise AssertionError("the two sides did not hear the same answers")
