"""Bytes a token and decoding speed of the stored teacher signal, beside JSON and Parquet.

All three hold the same tokens: k = 16 likeliest tokens and the tail's log mass, of a distribution
over 152,000 ids that follows Zipf's law, at temperature 1. JSON and Parquet (zstd) hold fp32
log-probs; what our rounding costs is measured as the KL from the fp32 distribution to what is read.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.result import Result
from prompts.signal import SignalHeader, SignalReader, TopKRow, top_k_row, write_signal

TARGET_BYTES, TARGET_SPEED = 40.0, 1e6
K = 16
ROW_TOKENS = 200
CANDIDATES = 64
KL_LIMIT = 1e-3
"""Nats a token that the rounding may cost, on average."""


def run(quick: bool) -> Result:
    """Bytes a token and tokens a second; growth over tokens and over the vocabulary."""
    rows = 50 if quick else 200
    growth = [
        measure(rows // 5, 152_000, quick),
        measure(rows, 32_000, quick),
        measure(rows, 152_000, quick),
    ]
    last = growth[-1]
    met = last["ours_bytes"] <= TARGET_BYTES and last["ours_tokens_per_s"] >= TARGET_SPEED
    return Result(
        name="signal",
        ours=last["ours_bytes"],
        unit="bytes a token",
        ratio=last["ours_bytes"] / last["parquet_bytes"],
        target=f"<= {TARGET_BYTES:.0f} bytes a token, decoded at >= 1 M tokens/s",
        met=met,
        peer=last["parquet_bytes"],
        growth=growth,
    )


def measure(rows: int, vocabulary: int, quick: bool) -> dict[str, float]:
    """Medians over interleaved rounds; what each side reads is compared before any timing."""
    made = make_rows(rows, vocabulary)
    tokens = rows * ROW_TOKENS
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: Path(folder) / name for name in ("ours.signal", "json", "parquet")}
        write_ours(paths["ours.signal"], made)
        write_json(paths["json"], made)
        write_parquet(paths["parquet"], made)
        kl = mean_kl(made, paths["ours.signal"])
        if kl > KL_LIMIT:
            raise AssertionError(f"the rounding costs {kl:.2g} nats a token")
        readers = dict(zip(("ours", "json", "parquet"), paths.values(), strict=True))
        times: dict[str, list[float]] = {name: [] for name in readers}
        for _ in range(3 if quick else 5):
            for name, path in readers.items():
                begun = time.perf_counter()
                if READERS[name](path) != tokens:
                    raise AssertionError(f"{name} lost tokens")
                times[name].append(time.perf_counter() - begun)
        sizes = {f"{name}_bytes": path.stat().st_size / tokens for name, path in readers.items()}
    speeds = {f"{name}_tokens_per_s": tokens / statistics.median(t) for name, t in times.items()}
    return {"tokens": tokens, "vocabulary": vocabulary, **sizes, **speeds, "kl_nats": kl}


def make_rows(rows: int, vocabulary: int) -> list[TopKRow]:
    """Rows of 200 tokens: distinct ids by Zipf's law, log-probs of normal logits (deviation 3)."""
    generator = np.random.default_rng(0)
    return [make_row(generator, vocabulary) for _ in range(rows)]


def make_row(generator: np.random.Generator, vocabulary: int) -> TopKRow:
    """One row; nine of ten tokens are among their k."""
    uniform = generator.random((ROW_TOKENS, CANDIDATES))
    drawn = (np.exp(uniform * np.log(vocabulary)).astype(np.int64) - 1).tolist()
    ids = np.array([list(dict.fromkeys([*row, *range(K)]))[:K] for row in drawn], np.int32)
    logits = generator.normal(size=(ROW_TOKENS, K)) * 3
    logprobs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True) * 1.05)
    inside = ids[np.arange(ROW_TOKENS), generator.integers(0, K, ROW_TOKENS)]
    among = generator.random(ROW_TOKENS) < 0.9
    chosen: NDArray[np.int32] = np.where(among, inside, vocabulary - 1).astype(np.int32)
    return top_k_row(chosen, ids, logprobs.astype(np.float32))


def mean_kl(rows: Sequence[TopKRow], path: Path) -> float:
    """KL(fp32 || read) over the k + 1 outcomes, mean over tokens, nats."""
    sums, tokens = 0.0, 0
    with SignalReader(path) as reader:
        for row, (_, read) in zip(rows, reader.scan(), strict=True):
            assert isinstance(read, TopKRow)
            if not np.array_equal(read.ids, row.ids):
                raise AssertionError("other ids were read than written")
            given, found = outcomes(row), outcomes(read)
            sums += float((np.exp(given) * (given - found)).sum())
            tokens += len(row.token_ids)
    return sums / tokens


def outcomes(row: TopKRow) -> NDArray[np.float64]:
    """[T, k + 1] log-probs, the tail last."""
    return np.concatenate([row.logprobs, row.tail_logprob[:, None]], axis=1).astype(np.float64)


def write_ours(path: Path, rows: Sequence[TopKRow]) -> None:
    """Our format."""
    header = SignalHeader(kind="top_k", width=K, teacher="made")
    write_signal(path, header, ((f"row-{n:06d}", row) for n, row in enumerate(rows)))


def write_json(path: Path, rows: Sequence[TopKRow]) -> None:
    """One row a line."""
    lines = (json.dumps({name: value.tolist() for name, value in columns(row)}) for row in rows)
    path.write_text("\n".join(lines))


def write_parquet(path: Path, rows: Sequence[TopKRow]) -> None:
    """One token a row; k entries are fixed-size lists."""
    names = [name for name, _ in columns(rows[0])]
    joined = [
        np.concatenate(parts) for parts in zip(*(row_values(row) for row in rows), strict=True)
    ]
    arrays = [as_arrow(column) for column in joined]
    pq.write_table(pa.table(dict(zip(names, arrays, strict=True))), path, compression="zstd")


def as_arrow(column: NDArray[np.generic]) -> pa.Array:
    """A column of numbers, or of k numbers each."""
    flat = pa.array(column.ravel())
    return flat if column.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, column.shape[1])


def columns(row: TopKRow) -> list[tuple[str, NDArray[np.generic]]]:
    """What every format holds."""
    names = ("token_ids", "ids", "logprobs", "tail_logprob")
    return list(zip(names, row_values(row), strict=True))


def row_values(row: TopKRow) -> tuple[NDArray[np.generic], ...]:
    """The four arrays."""
    return row.token_ids, row.ids, row.logprobs, row.tail_logprob


def read_ours(path: Path) -> int:
    """Every row as arrays; the number of tokens."""
    with SignalReader(path) as reader:
        return sum(len(row.token_ids) for _, row in reader.scan())


def read_json(path: Path) -> int:
    """The same from JSON."""
    tokens = 0
    for line in path.read_text().splitlines():
        row = json.loads(line)
        arrays = [np.array(row[name]) for name in ("token_ids", "ids", "logprobs", "tail_logprob")]
        tokens += len(arrays[0])
    return tokens


def read_parquet(path: Path) -> int:
    """The same from Parquet."""
    table = pq.read_table(path)
    arrays = [column.combine_chunks() for column in table.columns]
    flat = [a.flatten() if pa.types.is_fixed_size_list(a.type) else a for a in arrays]
    return len(next(iter([column.to_numpy() for column in flat])))


READERS: dict[str, Callable[[Path], int]] = {
    "ours": read_ours,
    "json": read_json,
    "parquet": read_parquet,
}
