import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from prompts.signal import (
    LOGPROB_ERROR_NATS,
    SampledRow,
    SignalError,
    SignalHeader,
    SignalReader,
    TopKRow,
    top_k_row,
    write_signal,
)
from prompts.signal.layout import row_digest

HEADER = SignalHeader(
    kind="top_k", width=4, vocabulary=70_000, teacher="t", tokenizer_sha256="a" * 64
)


def test_a_row_comes_back_within_the_stated_error(tmp_path: Path) -> None:
    rows = some_rows(40)
    write_signal(tmp_path / "a.signal", HEADER, rows.items())
    with SignalReader(tmp_path / "a.signal") as reader:
        assert reader.header == HEADER
        assert (reader.rows_total, reader.tokens_total) == (40, total_tokens(rows))
        for row_id in reversed(rows):
            assert_near(reader.read(row_id), rows[row_id])


def test_the_outcomes_of_each_token_sum_to_one(tmp_path: Path) -> None:
    write_signal(tmp_path / "a.signal", HEADER, some_rows(5).items())
    with SignalReader(tmp_path / "a.signal") as reader:
        for _, row in reader.scan():
            assert isinstance(row, TopKRow)
            mass = np.exp(row.logprobs).sum(axis=1) + np.exp(row.tail_logprob)
            np.testing.assert_allclose(mass, 1, atol=1e-6)


def test_many_rows_at_once_come_in_the_order_asked(tmp_path: Path) -> None:
    rows = some_rows(300)
    write_signal(tmp_path / "a.signal", HEADER, rows.items())
    wanted = ["row-7", "row-299", "row-7", "row-0"]
    with SignalReader(tmp_path / "a.signal") as reader:
        for name, row in zip(wanted, reader.rows(wanted), strict=True):
            assert_near(row, rows[name])


def test_a_directory_of_files_is_one_signal(tmp_path: Path) -> None:
    rows = list(some_rows(20).items())
    write_signal(tmp_path / "x-0.signal", HEADER, rows[:10])
    write_signal(tmp_path / "x-1.signal", HEADER, rows[10:])
    with SignalReader(tmp_path) as reader:
        assert reader.rows_total == 20
        assert "row-3" in reader
        assert "row-15" in reader
        assert "row-20" not in reader
        assert [name for name, _ in reader.scan()] == [name for name, _ in rows]


def test_files_of_different_headers_are_not_one_signal(tmp_path: Path) -> None:
    other = HEADER.model_copy(update={"tokenizer_sha256": "b" * 64})
    write_signal(tmp_path / "x-0.signal", HEADER, [])
    write_signal(tmp_path / "x-1.signal", other, [])
    with pytest.raises(SignalError, match=r"x-1\.signal has another header than x-0\.signal"):
        SignalReader(tmp_path)


def test_sampled_draws_come_back_with_their_weights(tmp_path: Path) -> None:
    header = SignalHeader(kind="sampled", width=3, teacher="t", proposal_temperature=1.0)
    tokens, ids = np.array([1, 2], np.int32), np.array([[5, 5, 6], [7, 8, 9]], np.int32)
    weights = np.array([[1 / 3, 1 / 3, 1 / 3], [0.01, 0.5, 0.2]], np.float32)
    write_signal(tmp_path / "a.signal", header, [("r", SampledRow(tokens, ids, weights))])
    with SignalReader(tmp_path / "a.signal") as reader:
        row = reader.read("r")
    assert isinstance(row, SampledRow)
    assert row.kind == "sampled"
    np.testing.assert_array_equal(row.ids, ids)
    np.testing.assert_array_equal(row.weights[0], weights[0])
    np.testing.assert_allclose(row.weights[1], weights[1], rtol=2**-11)


def test_a_missing_row_is_named(tmp_path: Path) -> None:
    write_signal(tmp_path / "a.signal", HEADER, some_rows(2).items())
    with SignalReader(tmp_path / "a.signal") as reader, pytest.raises(SignalError, match="'row-9'"):
        reader.read("row-9")


def test_a_place_is_found_although_two_rows_share_a_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prompts.signal.writer.row_digest", lambda name: 1)
    monkeypatch.setattr("prompts.signal.layout.row_digest", lambda name: 1)
    assert row_digest("a") != row_digest("b")
    rows = some_rows(3)
    write_signal(tmp_path / "a.signal", HEADER, rows.items())
    with SignalReader(tmp_path / "a.signal") as reader:
        assert_near(reader.read("row-2"), rows["row-2"])


def test_a_row_of_many_tokens_and_one_of_none(tmp_path: Path) -> None:
    rows = {"long": random_row(5000, seed=1), "none": random_row(0, seed=2)}
    write_signal(tmp_path / "a.signal", HEADER, rows.items())
    with SignalReader(tmp_path / "a.signal") as reader:
        assert_near(reader.read("long"), rows["long"])
        assert len(reader.read("none").token_ids) == 0


def test_equal_rows_give_equal_bytes(tmp_path: Path) -> None:
    first = write_signal(tmp_path / "a.signal", HEADER, some_rows(9).items())
    second = write_signal(tmp_path / "b.signal", HEADER, some_rows(9).items())
    assert (first.sha256, first.bytes) == (second.sha256, second.bytes)


@pytest.mark.parametrize("cut", [1, 30, 400])
def test_a_truncated_file_is_named(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "a.signal"
    write_signal(path, HEADER, some_rows(9).items())
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(SignalError, match=r"a\.signal is damaged: .*truncated"):
        SignalReader(path)


def test_every_flipped_byte_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.signal"
    write_signal(path, HEADER, some_rows(3).items())
    whole = path.read_bytes()
    for place in range(0, len(whole), 31):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 64]) + whole[place + 1 :])
        with pytest.raises(SignalError, match=r"a\.signal"):
            read_all(path)


def test_an_empty_directory_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SignalError, match="holds no signal: build the dataset"):
        SignalReader(tmp_path)
    (tmp_path / "b.signal").write_bytes(b"something else entirely")
    with pytest.raises(SignalError, match="is no signal file"):
        SignalReader(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ids": np.full((3, 4), 70_000, np.int32)}, "vocabulary is 0 to 69999"),
        ({"ids": np.zeros((3, 5), np.int32)}, "4 entries wanted"),
        ({"logprobs": np.full((3, 4), np.nan, np.float32)}, "no number"),
        ({"logprobs": np.full((3, 4), 0.5, np.float32)}, "above 0"),
        ({"logprobs": np.tile(np.float32([-2, -1, -3, -4]), (3, 1))}, "descending"),
        ({"tail_logprob": np.zeros(2, np.float32)}, "tail masses"),
        ({"ids": np.tile(np.int32([5, 6, 7, 5]), (3, 1))}, "a token stands twice"),
    ],
)
def test_a_row_that_does_not_fit_is_refused_by_name(
    tmp_path: Path, change: Any, words: str
) -> None:
    row = replace(random_row(3, seed=0), **change)
    with pytest.raises(SignalError, match=f"row 'bad': .*{words}"):
        write_signal(tmp_path / "a.signal", HEADER, [("bad", row)])
    assert list(tmp_path.iterdir()) == []


def test_an_id_that_comes_twice_is_refused(tmp_path: Path) -> None:
    row = random_row(3, seed=0)
    with pytest.raises(SignalError, match="'a' has a signal already"):
        write_signal(tmp_path / "a.signal", HEADER, [("a", row), ("a", row)])


def test_the_tail_is_what_the_entries_leave() -> None:
    row = top_k_row(
        np.int32([1, 2]),
        np.int32([[1, 2], [3, 4]]),
        np.log(np.float32([[0.2, 0.5], [0.75, 0.25]])),
    )
    np.testing.assert_array_equal(row.ids, [[2, 1], [3, 4]])
    np.testing.assert_allclose(np.exp(row.tail_logprob), [0.3, 0], atol=1e-6)
    assert np.isfinite(row.tail_logprob).all()


def test_sixteen_entries_and_a_tail_take_at_most_forty_bytes_a_token(tmp_path: Path) -> None:
    header = SignalHeader(kind="top_k", width=16, vocabulary=32_000, teacher="t")
    rows = {str(n): random_row(200, seed=n, width=16, vocabulary=32_000) for n in range(20)}
    file = write_signal(tmp_path / "a.signal", header, rows.items())
    assert file.bytes / file.tokens <= 40
    as_json = json.dumps([row.logprobs.tolist() for row in rows.values()])
    assert len(as_json) / file.tokens > 200


def read_all(path: Path) -> None:
    with SignalReader(path) as reader:
        list(reader.scan())


def some_rows(count: int) -> dict[str, TopKRow]:
    return {f"row-{n}": random_row(1 + (n * 37) % 90, seed=n) for n in range(count)}


def random_row(tokens: int, seed: int, width: int = 4, vocabulary: int = 70_000) -> TopKRow:
    generator = np.random.default_rng(seed)
    # Zipf's law: about what the likeliest tokens of a language are.
    drawn = np.exp(generator.random((tokens, 8 * width)) * np.log(vocabulary)).astype(int) - 1
    distinct = [list(dict.fromkeys([*row, *range(width)]))[:width] for row in drawn.tolist()]
    ids = np.array(distinct, np.int32).reshape(tokens, width)
    logits = np.sort(generator.normal(size=(tokens, width)) * 3)[:, ::-1].astype(np.float32)
    logprobs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True) * 1.05)
    inside = ids[np.arange(tokens), generator.integers(0, width, tokens)]
    tokens_given = np.where(generator.random(tokens) < 0.9, inside, vocabulary - 1)
    return top_k_row(tokens_given.astype(np.int32), ids, logprobs.astype(np.float32))


def total_tokens(rows: dict[str, TopKRow]) -> int:
    return sum(len(row.token_ids) for row in rows.values())


def assert_near(found: TopKRow | SampledRow, wanted: TopKRow) -> None:
    assert isinstance(found, TopKRow)
    np.testing.assert_array_equal(found.token_ids, wanted.token_ids)
    np.testing.assert_array_equal(found.ids, wanted.ids)
    assert (found.token_ids.dtype, found.ids.dtype) == (np.int32, np.int32)
    assert (found.logprobs.dtype, found.tail_logprob.dtype) == (np.float32, np.float32)
    assert_bounded(found.logprobs, wanted.logprobs)
    assert_bounded(found.tail_logprob, wanted.tail_logprob)


def assert_bounded(found: NDArray[Any], wanted: NDArray[Any]) -> None:
    above, below = LOGPROB_ERROR_NATS
    kept = wanted > -4000
    bounds = np.where(wanted > -4, above, below)[kept]
    assert (np.abs(found - wanted)[kept] <= bounds + 1e-5).all()
    assert (found[~kept] < -3999).all()
