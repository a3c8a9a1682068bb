import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompts.seeds import SeedError, scan_seeds
from tests.prompts.making import LETTERS, lines_of


def seeds_of(content: bytes, *required: str) -> list[tuple[int, dict[str, Any]]]:
    return list(scan_seeds(content.splitlines(keepends=True), required))


def problem_of(content: bytes, *required: str) -> SeedError:
    with pytest.raises(SeedError) as caught:
        seeds_of(content, *required)
    return caught.value


TEXTS = st.text(LETTERS.replace("\x00", ""), max_size=8)
VALUES = st.none() | st.booleans() | st.integers() | TEXTS | st.lists(TEXTS, max_size=2)


@given(
    st.lists(st.fixed_dictionaries({"a": VALUES}), min_size=1, max_size=5),
    st.booleans(),
    st.sampled_from([b"\n", b"\r\n", b"\n\n", b"\n  \r\n"]),
)
def test_what_was_written_is_read(rows: list[dict[str, Any]], bom: bool, newline: bytes) -> None:
    content = newline.join(json.dumps(row, ensure_ascii=False).encode() for row in rows)
    read = seeds_of(b"\xef\xbb\xbf" * bom + content)
    ids = [seed.pop("id") for _, seed in read]
    assert [seed for _, seed in read] == rows
    assert ids == [f"row-{line:06d}" for line, _ in read]


@given(st.binary(max_size=40))
def test_any_bytes_give_seeds_or_a_seed_error(content: bytes) -> None:
    try:
        read = seeds_of(content)
    except SeedError:
        return
    assert read


def test_an_empty_file_is_refused() -> None:
    for content in (b"", b"\n \r\n", b"\xef\xbb\xbf"):
        assert "no seeds" in str(problem_of(content))


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (b'{"a": ', "malformed JSON"),
        (b"hello", "malformed JSON"),
        (b'{"a": NaN}', "NaN"),
        (b"[" * 100_000, "malformed JSON"),
        (b"1" * 5000, "malformed JSON"),
        (b"[1]", "JSON array"),
        (b"null", "JSON null"),
        (b"3", "JSON number"),
        (b'{"a": "\xe9"}', "not UTF-8 (byte 8 is 0xe9)"),
        (b'{"a": "\\ud800"}', "surrogate"),
        (b'{"id": true}', "JSON boolean"),
        (b'{"id": [1]}', "JSON array"),
    ],
)
def test_a_bad_line_is_named(bad: bytes, words: str) -> None:
    error = problem_of(b'{"a": 1}\n\n' + bad + b"\n")
    assert error.line == 3
    assert str(error).startswith("line 3: ")
    assert words in error.problem


def test_a_duplicate_id_names_both_lines() -> None:
    error = problem_of(b"".join(lines_of({"id": "x"}, {"id": "y"}, {"id": "x"})))
    assert error.line == 3
    assert "'x'" in error.problem
    assert "line 1" in error.problem


def test_an_id_that_looks_assigned_collides_with_the_assigned_one() -> None:
    assert problem_of(b"".join(lines_of({}, {"id": "row-000001"}))).line == 2


def test_numeric_ids_become_text_and_missing_ones_are_assigned() -> None:
    read = seeds_of(b"".join(lines_of({"id": 7}, {"id": 1.5}, {"id": None}, {"id": ""}, {})))
    assert [seed["id"] for _, seed in read] == [
        "7",
        "1.5",
        "row-000003",
        "row-000004",
        "row-000005",
    ]


def test_a_missing_field_names_those_that_are_there() -> None:
    error = problem_of(b"".join(lines_of({"q": 1}, {"question": 1, "hint": 2})), "q")
    assert str(error) == "line 2: has no field 'q'; the fields it has: question, hint, id"


@pytest.mark.parametrize("value", [None, "", " \n", [], {}])
def test_an_empty_field_is_refused(value: Any) -> None:
    assert "'q' is empty" in problem_of(b"".join(lines_of({"q": value})), "q").problem


@pytest.mark.parametrize("value", [0, False, "0"])
def test_zero_and_false_are_not_empty(value: Any) -> None:
    assert seeds_of(b"".join(lines_of({"q": value})), "q")


def test_it_streams() -> None:
    def endless():  # type: ignore[no-untyped-def]
        while True:
            yield b"{}\n"

    stream = scan_seeds(endless())
    assert [next(stream)[0] for _ in range(3)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"q": "' + b"x" * (8 * 2**20) + b'"}', "is 8.0 MiB long, at most 8 go"),
        (b'{"q": "a\\u0000b"}', "^line 2: holds a NUL"),
        (b'{"q": 1e400}', "1e400 is too large for a number"),
        (b'{"a": {"\\u0000": 1}}', "holds a NUL"),
        (b'{"q": "\\ud83d"}', "surrogate"),
        (b'{"q": "a\x00b"}', "malformed JSON"),
    ],
    ids=["long", "NUL", "beyond a float", "NUL in a key", "half a pair", "raw NUL"],
)
def test_lines_that_no_prompt_can_hold(line: bytes, words: str) -> None:
    with pytest.raises(SeedError, match=words) as caught:
        list(scan_seeds([b'{"q": "fine"}', line]))
    assert caught.value.line == 2


def test_a_backslash_before_u0000_is_no_nul() -> None:
    ((_, seed),) = scan_seeds([b'{"q": "a\\\\u0000b", "r": "\\u00e9"}'])
    assert (seed["q"], seed["r"]) == ("a\\u0000b", "\u00e9")


def test_fields_may_change_their_type_from_line_to_line() -> None:
    lines = [b'{"q": 1}', b'{"q": "a"}', b'{"q": [1, "b"]}', b'{"q": {"a": null}}']
    assert [seed["q"] for _, seed in scan_seeds(lines)] == [1, "a", [1, "b"], {"a": None}]
