"""The first file of a multipart/form-data body, as a stream: nothing is spooled elsewhere."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from service.problems import Problem


@dataclass
class _Parts:
    """What the parser's callbacks have seen."""

    headers: dict[bytes, bytes] = field(default_factory=dict)
    header: bytes = b""
    value: bytes = b""
    in_file: bool = False
    found: bool = False
    blocks: list[bytes] = field(default_factory=list)

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
        self.found = self.found or self.in_file

    def data(self, data: bytes, start: int, end: int) -> None:
        if self.in_file:
            self.blocks.append(data[start:end])

    def end(self) -> None:
        self.in_file = False

    def take(self) -> bytes:
        taken = b"".join(self.blocks)
        self.blocks.clear()
        return taken


async def first_file(stream: AsyncIterator[bytes], content_type: str) -> AsyncIterator[bytes]:
    """The bytes of the first file part of `stream`. Raises a 400 problem if there is none or the
    body isn't what its content type says."""
    _, options = parse_options_header(content_type)
    parts = _Parts()
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
