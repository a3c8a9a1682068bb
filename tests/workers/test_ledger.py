"""The ledger: durable before it counts, whole or not there, one writer per epoch."""

import asyncio
import errno
from pathlib import Path

import pytest

from prompts.record import Call
from service.durable import write_durably
from workers.lease import Lease
from workers.ledger import (
    GROUP_SIZE,
    Entry,
    LeaseLostError,
    LedgerDamagedError,
    LedgerWriter,
    encode_segment,
    folder_of,
    read_entries,
)


def lease_of(epoch: int = 1, lease_s: float = 60) -> Lease:
    return Lease("job", 0, epoch, "one", lease_s)


def entry(row: str, text: str = "text", step: int = 0) -> Entry:
    call = Call(row=row, step=step, text=text, finish_reason="stop", completion_tokens=3)
    return Entry(call, 0.5)


def append_all(writer: LedgerWriter, entries: list[Entry]) -> None:
    async def together() -> None:
        await asyncio.gather(*(writer.append(one) for one in entries))

    asyncio.run(together())


def segments(root: Path) -> list[Path]:
    return sorted(folder_of(root, "job", 0).glob("*/*"))


def test_what_was_appended_is_read_by_the_next_epoch_only(tmp_path: Path) -> None:
    append_all(LedgerWriter(tmp_path, lease_of(epoch=2)), [entry("a"), entry("b")])
    folder = folder_of(tmp_path, "job", 0)
    assert read_entries(folder, below=3) == {"a": [entry("a")], "b": [entry("b")]}
    assert read_entries(folder, below=2) == {}


def test_the_first_answer_of_a_row_stands(tmp_path: Path) -> None:
    append_all(LedgerWriter(tmp_path, lease_of(epoch=1)), [entry("a", "first")])
    append_all(
        LedgerWriter(tmp_path, lease_of(epoch=2)), [entry("a", "second"), entry("a", step=1)]
    )
    read = read_entries(folder_of(tmp_path, "job", 0))["a"]
    assert [(one.call.step, one.call.text) for one in read] == [(0, "first"), (1, "text")]


def test_calls_that_finish_together_share_a_segment(tmp_path: Path) -> None:
    append_all(LedgerWriter(tmp_path, lease_of()), [entry(str(i)) for i in range(3 * GROUP_SIZE)])
    assert len(segments(tmp_path)) <= 3
    assert len(read_entries(folder_of(tmp_path, "job", 0))) == 3 * GROUP_SIZE


def test_an_append_returns_only_when_it_is_durable(tmp_path: Path) -> None:
    durable: list[Path] = []

    def slow_disk(path: Path, data: bytes) -> None:  # A fake: a disk with a known moment of sync.
        write_durably(path, data)
        durable.append(path)

    async def one_by_one() -> None:
        writer = LedgerWriter(tmp_path, lease_of(), slow_disk)
        for number in range(3):
            await writer.append(entry(str(number)))
            assert len(durable) == number + 1

    asyncio.run(one_by_one())


def test_a_segment_that_was_never_renamed_is_passed_over(tmp_path: Path) -> None:
    append_all(LedgerWriter(tmp_path, lease_of()), [entry("a")])
    torn = segments(tmp_path)[0].with_name(".000002.tmp")
    torn.write_bytes(encode_segment([entry("b")])[:-7])
    assert read_entries(folder_of(tmp_path, "job", 0)).keys() == {"a"}


def test_a_damaged_segment_is_never_passed_over(tmp_path: Path) -> None:
    append_all(LedgerWriter(tmp_path, lease_of()), [entry("a")])
    segment = segments(tmp_path)[0]
    whole = segment.read_bytes()
    for damaged in (whole[:-3], b"", whole.replace(b"text", b"best", 1), b"[]\n[]\n"):
        segment.write_bytes(damaged)
        with pytest.raises(LedgerDamagedError, match="000001"):
            read_entries(folder_of(tmp_path, "job", 0))


def test_a_lost_lease_writes_nothing(tmp_path: Path) -> None:
    lease = lease_of()
    lease.lost.set()
    with pytest.raises(LeaseLostError):
        append_all(LedgerWriter(tmp_path, lease), [entry("a")])
    assert segments(tmp_path) == []


def test_a_late_heartbeat_holds_the_writing_up(tmp_path: Path) -> None:
    lease = lease_of(lease_s=0.01)
    lease.renewed_at -= 1

    async def beat_later() -> None:
        writer = LedgerWriter(tmp_path, lease)
        appended = asyncio.create_task(writer.append(entry("a")))
        await asyncio.sleep(0.1)
        assert segments(tmp_path) == []
        lease.lease_s = 60
        await appended

    asyncio.run(beat_later())
    assert len(segments(tmp_path)) == 1


@pytest.mark.slow
def test_a_full_disk_is_waited_for_and_another_error_is_not(tmp_path: Path) -> None:
    errors = [errno.ENOSPC]
    told: list[str] = []

    def disk(path: Path, data: bytes) -> None:  # A fake: a disk that is full once, then broken.
        if errors:
            raise OSError(errors.pop(), "told to fail")
        write_durably(path, data)

    append_all(LedgerWriter(tmp_path, lease_of(), disk, told.append), [entry("a")])
    assert len(told) == 1
    assert read_entries(folder_of(tmp_path, "job", 0)).keys() == {"a"}
    errors.append(errno.EIO)
    with pytest.raises(OSError, match="told to fail"):
        append_all(LedgerWriter(tmp_path, lease_of(2), disk), [entry("b")])
