"""A multipart/form-data body: its first file as a stream, spooled nowhere, and its short fields."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from service.problems import Problem

MOST_FIELDS = 50
LONGEST_FIELD = 10_000
"""Characters; what is beyond either bound is passed over."""


@dataclass
class _Parts:
    """What the parser's callbacks have seen."""

    headers: dict[bytes, bytes] = field(default_factory=dict)
    header: bytes = b""
    value: bytes = b""
    in_file: bool = False
    found: bool = False
    file_name: str = ""
    blocks: list[bytes] = field(default_factory=list)
    name: str = ""
    fields: dict[str, str] = field(default_factory=dict)

    def begin(self) -> None:
        self.headers = {}

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self.header += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self.value += data[start:end]

    def header_end(self) -> None:
        self.headers[self.header.lower()] = self.value
        self.header = self.value = b""

    def headers_finished(self) -> None:
        _, options = parse_options_header(self.headers.get(b"content-disposition", b""))
        self.in_file = b"filename" in options and not self.found
        self.name = options.get(b"name", b"").decode(errors="replace")
        if self.in_file:
            self.found = True
            self.file_name = options[b"filename"].decode(errors="replace")

    def data(self, data: bytes, start: int, end: int) -> None:
        if self.in_file:
            self.blocks.append(data[start:end])
        elif b"content-disposition" in self.headers:
            text = self.fields.get(self.name, "") + data[start:end].decode(errors="replace")
            if len(self.fields) < MOST_FIELDS and len(text) <= LONGEST_FIELD:
                self.fields[self.name] = text

    def end(self) -> None:
        self.in_file = False

    def take(self) -> bytes:
        taken = b"".join(self.blocks)
        self.blocks.clear()
        return taken


@dataclass(frozen=True)
class Form:
    """A form that is being read."""

    file: AsyncIterator[bytes]
    """The bytes of its first file. Raises a 400 problem if there is none or the body isn't what its
    content type says."""
    _parts: _Parts

    @property
    def file_name(self) -> str:
        """Known once the first bytes were read."""
        return self._parts.file_name

    @property
    def fields(self) -> dict[str, str]:
        """Complete once the file was read to its end: some clients send them after it."""
        return self._parts.fields


def read_form(stream: AsyncIterator[bytes], content_type: str) -> Form:
    """A form of which the file is read as it comes."""
    parts = _Parts()
    return Form(_read(stream, content_type, parts), parts)


def first_file(stream: AsyncIterator[bytes], content_type: str) -> AsyncIterator[bytes]:
    """The bytes of the first file part of `stream`; see `Form.file`."""
    return read_form(stream, content_type).file


async def _read(
    stream: AsyncIterator[bytes], content_type: str, parts: _Parts
) -> AsyncIterator[bytes]:
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data" or b"boundary" not in options:
        raise _malformed("its content type isn't multipart/form-data with a boundary")
    parser = MultipartParser(
        options.get(b"boundary", b""),
        {
            "on_part_begin": parts.begin,
            "on_header_field": parts.header_field,
            "on_header_value": parts.header_value,
            "on_header_end": parts.header_end,
            "on_headers_finished": parts.headers_finished,
            "on_part_data": parts.data,
            "on_part_end": parts.end,
        },
    )
    try:
        async for block in stream:
            parser.write(block)
            yield parts.take()
        parser.finalize()
    except MultipartParseError as error:
        raise _malformed(str(error)) from error
    if not parts.found:
        raise _malformed("it holds no part with a file name")


def _malformed(why: str) -> Problem:
    return Problem(
        400, "bad-multipart", "The form can't be read", f"The multipart body is unusable: {why}."
    )
