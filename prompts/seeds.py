"""Reads seeds: JSON Lines, one object a line, checked before anything is spent on them."""

import json
import re
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from prompts.record import Seed
from prompts.schemas import finite
from prompts.seen import Seen, digest16

LONGEST_LINE = 8 * 2**20
"""Bytes; no prompt is that long, and a file without line ends would be one line."""
_NUL = re.compile(r"(\\+)u0000")
_BOM = b"\xef\xbb\xbf"


class SeedError(ValueError):
    """What is wrong with a seeds file, and on which line (1-based; None: the file as a whole)."""

    def __init__(self, line: int | None, problem: str) -> None:
        super().__init__(problem if line is None else f"line {line}: {problem}")
        self.line = line
        self.problem = problem


def scan_seeds(
    lines: Iterable[bytes], required: Collection[str] = ()
) -> Iterator[tuple[int, Seed]]:
    """Yields (line number, seed) for each line that isn't blank; streams.

    A seed's `id` is a string: numbers become strings, a missing one becomes `row-` and the line's
    number. Raises SeedError at the first bad line: not UTF-8, no JSON object, a field of
    `required` missing or empty, an id used before, longer than `LONGEST_LINE`, or with a NUL; and
    at the end of a file without any seed.
    """
    seen = Seen()
    for number, line in enumerate(lines, 1):
        text = _decoded(number, line)
        if not text:
            continue
        seed = _with_id(number, _parsed(number, text))
        _check_fields(number, seed, required)
        first = seen.first(digest16(seed["id"]), number)
        if first is not None:
            raise SeedError(number, f"the id {seed['id']!r} was already used on line {first}")
        yield number, seed
    if not len(seen):
        raise SeedError(None, "the file holds no seeds; it needs one JSON object per line")


def is_empty(value: Any) -> bool:
    """None, an empty container and a text of white space say nothing; 0 and False do."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or value in ([], {})


def _decoded(number: int, line: bytes) -> str:
    if len(line) > LONGEST_LINE:
        size, most = len(line) / 2**20, LONGEST_LINE // 2**20
        raise SeedError(number, f"is {size:.1f} MiB long, at most {most} go; one object per line")
    if number == 1:
        line = line.removeprefix(_BOM)
    try:
        return line.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        place = f"byte {error.start + 1} is 0x{line[error.start]:02x}"
        raise SeedError(number, f"not UTF-8 ({place}); save the file as UTF-8") from None


def _parsed(number: int, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text, parse_constant=_refuse_constant, parse_float=finite)
        if "\\u" in text:
            plain = json.dumps(value, ensure_ascii=False)
            plain.encode()
            _refuse_nul(number, plain)
    except json.JSONDecodeError as error:
        hint = "each line must be one complete JSON object"
        problem = f"malformed JSON at column {error.colno} ({error.msg}); {hint}"
        raise SeedError(number, problem) from None
    except SeedError:
        raise
    except UnicodeEncodeError:
        raise SeedError(number, "holds half of a \\u surrogate pair, which is no text") from None
    except (ValueError, RecursionError) as error:
        raise SeedError(number, f"malformed JSON ({error})") from None
    if not isinstance(value, dict):
        problem = f"holds a JSON {_json_type(value)}; each line must be an object"
        raise SeedError(number, problem)
    return value


def _refuse_nul(number: int, text: str) -> None:
    # Encoded again, a NUL is an escape sequence whose backslash is not itself escaped.
    if any(len(slashes) % 2 for slashes in _NUL.findall(text)):
        raise SeedError(number, "holds a NUL character (\\u0000), which is no text")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _json_type(value: Any) -> str:
    names = {list: "array", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")


def _with_id(number: int, seed: dict[str, Any]) -> Seed:
    given = seed.get("id")
    if given is None or given == "":
        return {**seed, "id": f"row-{number:06d}"}
    if isinstance(given, bool) or not isinstance(given, str | int | float):
        raise SeedError(number, f"the id must be text or a number, not a JSON {_json_type(given)}")
    return {**seed, "id": str(given)}


def _check_fields(number: int, seed: Seed, required: Collection[str]) -> None:
    for field in sorted(required):
        if field not in seed:
            has = ", ".join(seed) or "none"
            raise SeedError(number, f"has no field {field!r}; the fields it has: {has}")
        if is_empty(seed[field]):
            raise SeedError(number, f"the field {field!r} is empty")
