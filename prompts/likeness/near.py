"""Near-duplicates by MinHash and locality-sensitive hashing [Broder 1997], with datasketch.

A text is the set of its runs of a few words. Its MinHash estimates the Jaccard similarity with
another's with a standard error of sqrt(J (1 - J) / permutations); candidates come from the LSH
buckets and count if their estimate reaches the limit, so pairs just around it may fall either way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from prompts.likeness.rouge import Likest
from prompts.overlap import words_of

if TYPE_CHECKING:
    from datasketch import MinHash

_MISS_WEIGHT = 0.9
"""Of the two errors of the buckets, missing a pair is the one that can't be mended afterwards."""


class NearIndex:
    """A growing pool; 8 bytes a permutation and the buckets' keys for each text. Raises ValueError
    for a limit so near to 1 that no bucket would take it with so few permutations."""

    def __init__(self, jaccard: float, permutations: int, shingle_words: int) -> None:
        from datasketch import MinHashLSH  # Late: scipy comes with it, in a second.

        self._jaccard, self._permutations = jaccard, permutations
        self._shingle_words = shingle_words
        weights = (1 - _MISS_WEIGHT, _MISS_WEIGHT)
        self._buckets = MinHashLSH(threshold=jaccard, num_perm=permutations, weights=weights)
        self._hashes: list[NDArray[np.uint64]] = []
        self._rows: list[str] = []

    def find(self, text: str) -> Likest | None:
        """The most similar text of the pool, if its estimated similarity reaches the limit; among
        equals the one that was added first."""
        found = self._find(self._hash(text))
        return None if found is None else Likest(self._rows[found[0]], found[1])

    def add(self, row: str, text: str) -> None:
        """Puts a text into the pool, under its row's id."""
        self._add(row, self._hash(text))

    def find_or_add(self, row: str, text: str) -> Likest | None:
        """Like `find`; a text that is like no other joins the pool."""
        sketch = self._hash(text)
        found = self._find(sketch)
        if found is None:
            self._add(row, sketch)
            return None
        return Likest(self._rows[found[0]], found[1])

    def __len__(self) -> int:
        return len(self._rows)

    def _find(self, sketch: MinHash) -> tuple[int, float] | None:
        best: tuple[int, float] | None = None
        for place in sorted(self._buckets.query(sketch)):
            score = float(np.mean(self._hashes[place] == sketch.hashvalues))
            if score >= self._jaccard and (best is None or score > best[1]):
                best = place, score
        return best

    def _add(self, row: str, sketch: MinHash) -> None:
        self._buckets.insert(len(self._rows), sketch, check_duplication=False)
        self._hashes.append(sketch.hashvalues)
        self._rows.append(row)

    def _hash(self, text: str) -> MinHash:
        from datasketch import MinHash

        words = words_of(text)
        size = min(self._shingle_words, len(words))
        starts = range(len(words) - size + 1) if words else range(0)
        sketch = MinHash(num_perm=self._permutations)
        runs = {" ".join(words[start : start + size]).encode() for start in starts}
        sketch.update_batch(sorted(runs) or [text.encode()])
        return sketch
