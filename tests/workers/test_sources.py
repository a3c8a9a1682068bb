"""Seeds from every source, and builds that go on from an earlier version."""

import csv
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prompts.dataset import read_manifest
from prompts.record import Record
from prompts.seeds import SeedError
from prompts.spec import CotBuild
from prompts.tables import csv_lines, parquet_lines, renamed
from service import jobs
from service.problems import Problem
from service.site import Site
from service.spec import BuildJob
from service.tables import Artifact, State
from tests.workers.conftest import (
    StubTeacher,
    check_each_once,
    dataset_of,
    get_job,
    register,
    rows_of,
    run_build,
    submit,
    sums,
)

ROWS = sums(30)


def publish(site: Site, path: Path) -> str:
    with site.sessions.writing.begin() as session:
        return site.store.publish(session, "file", path.name, path, summary={}, inputs=[]).id


def built(site: Site, seeds: Any, **fields: Any) -> str:
    """A finished build over these seeds; its id."""
    given = {"kind": "cot", "teacher": "stub", "seeds": seeds, "chunk_rows": 16} | fields
    spec = CotBuild.model_validate(given)
    job_id = jobs.submit(site, BuildJob(kind="build", build=spec)).id
    run_build(site, job_id)
    assert get_job(site, job_id).state == State.SUCCEEDED, get_job(site, job_id).detail
    return job_id


def write_csv(site: Site) -> str:
    path = site.settings.data_dir / "rows.csv"
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, list(ROWS[0]))
        writer.writeheader()
        writer.writerows(ROWS)
    return publish(site, path)


def write_parquet(site: Site) -> str:
    path = site.settings.data_dir / "rows.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS), path)
    return publish(site, path)


def save_dataset(site: Site) -> str:
    from datasets import Dataset

    path = site.settings.data_dir / "saved"
    Dataset.from_list(ROWS).save_to_disk(str(path))
    return str(path)


@pytest.mark.parametrize("source", [write_csv, write_parquet, save_dataset, lambda site: ROWS])
def test_rows_come_from_any_source(site: Site, stub: StubTeacher, source: Any) -> None:
    register(site, stub.url)
    job_id = built(site, source(site))
    check_each_once(dataset_of(site, job_id), 30)
    assert stub.stats()["distinct"] == 30


def test_a_source_is_never_held_whole(site: Site, stub: StubTeacher) -> None:
    register(site, stub.url)
    built(site, ROWS)  # brings the libraries, which are no part of it
    rows = [row | {"note": f"{row['id']} " + "x" * 100_000} for row in sums(400)]
    path = site.settings.data_dir / "long.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = publish(site, path)
    del rows
    tracemalloc.start()
    try:
        job_id = built(site, source)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    check_each_once(dataset_of(site, job_id), 400)
    assert peak < path.stat().st_size / 2


def test_another_dataset_is_a_source_and_columns_are_mapped(site: Site, stub: StubTeacher) -> None:
    register(site, stub.url)
    first = built(site, ROWS, name="first")
    accepted = get_job(site, first).result["accepted"]
    second = built(site, "first", template="Again: {{ asked }}", columns={"asked": "question"})
    rows = rows_of(dataset_of(site, second))
    assert len(rows) == accepted
    assert {json.loads(row.seed)["asked"][:7] for row in rows} == {"What is"}
    assert get_job(site, second).result["accepted"] == accepted


def test_a_wrong_column_is_refused_at_submit(site: Site, stub: StubTeacher) -> None:
    register(site, stub.url)
    with pytest.raises(Problem) as raised:
        built(site, ROWS, columns={"question": "asked.deep"})
    assert raised.value.faults[0].location == "build.seeds"
    assert "columns: there is no 'asked.deep'" in raised.value.faults[0].message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("id,question\na,b,c\n", "line 2: doesn't have the header's 2 fields"),
        ("id,question\na\n", "line 2: doesn't have the header's 2 fields"),
        ('id,question\na,"b\n', "line 2: malformed CSV"),
    ],
)
def test_bad_csv_is_said_with_its_line(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(SeedError, match=words):
        list(csv_lines(tmp_path / "x.csv"))


def test_a_torn_parquet_file_and_latin_1_are_said(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes("question\nä\n".encode("latin-1"))
    with pytest.raises(SeedError, match="not UTF-8"):
        list(csv_lines(tmp_path / "x.csv"))
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "x.parquet")
    torn = (tmp_path / "x.parquet").read_bytes()[:-20]
    (tmp_path / "x.parquet").write_bytes(torn)
    with pytest.raises(SeedError, match="no whole Parquet file"):
        list(parquet_lines(tmp_path / "x.parquet"))


def test_a_line_that_is_no_object_passes_renaming_as_it_is() -> None:
    assert list(renamed([b"[1]\n", b"{torn"], {"a": "b"})) == [b"[1]\n", b"{torn"]
    (line,) = renamed([b'{"b": [{"c": 3}]}'], {"a": "b.0.c"})
    assert json.loads(line)["a"] == 3


def test_an_incremental_build_asks_only_for_what_is_new(site: Site, stub: StubTeacher) -> None:
    register(site, stub.url)
    first = built(site, sums(40))
    before = {row.id: row for row in rows_of(dataset_of(site, first))}
    # The old seeds under new names, and ten that are new, one of them under an old name.
    moved = [row | {"id": f"m{i}"} for i, row in enumerate(sums(40))]
    new = sums(50)[40:]
    new[0]["id"] = "s00003"
    second = built(site, moved + new, incremental=True)
    assert stub.stats()["requests"] == 50
    assert get_job(site, second).result["requests"] == 10
    after = {row.id: row for row in rows_of(dataset_of(site, second))}
    assert {name: after[name] for name in before} == before
    assert len(after) == 50
    assert [name for name in after if name.startswith("s00003~")]
    manifest = read_manifest(dataset_of(site, second))
    kept = sum(isinstance(row, Record) for row in before.values())
    assert manifest.diff is not None
    assert (manifest.diff.kept, manifest.diff.added) == (kept, manifest.counts.accepted - kept)
    with site.sessions.reading() as session:
        base = session.get_one(Artifact, manifest.diff.base)
    assert (base.name, base.version) == ("dataset", 1)


def test_nothing_new_is_said(site: Site, stub: StubTeacher) -> None:
    register(site, stub.url)
    built(site, ROWS)
    job_id = submit(site, ROWS, incremental=True)
    run_build(site, job_id)
    assert get_job(site, job_id).reason == "bad_input"
    assert "no seed is new" in (get_job(site, job_id).detail or "")
