"""Counts rows while they pass."""

from collections import Counter
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from prompts.dataset.manifest import Counts, Manifest, ShardFile, SignalSummary
from prompts.record import End
from prompts.split import SPLITS


class Tally:
    """What a manifest says about rows, counted table by table."""

    def __init__(self) -> None:
        self._counted: dict[str, Counter[str]] = {
            name: Counter() for name in ("end", "reason", "split", "kind", "teacher", "revision")
        }
        self._tokens: Counter[str] = Counter()
        self._flags: Counter[str] = Counter()

    def add(self, accepted: pa.Table, others: pa.Table) -> None:
        """Counts a table of accepted rows and one of all others."""
        self._count("split", accepted["split"])
        self._count("revision", accepted["teacher_revision"])
        self._count("reason", others["reason"])
        for flags in accepted["flags"].drop_null().to_pylist():
            self._flags.update(set(flags))  # Two checks may find the same in a row.
        for table in (accepted, others):
            self._count("end", table["end"])
            self._count("kind", table["kind"])
            self._count("teacher", table["teacher"])
            for name in ("prompt_tokens", "completion_tokens"):
                self._tokens[name] += pc.sum(pc.struct_field(table["usage"], name)).as_py() or 0

    @property
    def rows(self) -> int:
        """Rows counted so far."""
        return self._counted["end"].total()

    def manifest(
        self,
        name: str,
        files: tuple[ShardFile, ...],
        totals: Mapping[str, float],
        signal: SignalSummary | None = None,
    ) -> Manifest:
        """All that was counted, as a manifest."""
        counted = self._counted
        accepted = counted["end"][End.ACCEPTED]
        return Manifest(
            name=name,
            kinds=tuple(sorted(counted["kind"])),
            counts=Counts(
                seeds=self.rows,
                accepted=accepted,
                rejected=counted["end"][End.REJECTED],
                not_needed=counted["end"][End.NOT_NEEDED],
            ),
            splits={split: counted["split"][split] for split in SPLITS},
            reasons=dict(sorted(counted["reason"].items())),
            flags=dict(sorted(self._flags.items())),
            empty=not accepted,
            teachers=tuple(sorted(counted["teacher"])),
            teacher_revisions=tuple(sorted(counted["revision"])),
            totals={**self._tokens, **totals},
            files=files,
            signal=signal,
        )

    def _count(self, name: str, column: pa.ChunkedArray) -> None:
        for pair in pc.value_counts(column.drop_null()).to_pylist():
            self._counted[name][pair["values"]] += pair["counts"]
