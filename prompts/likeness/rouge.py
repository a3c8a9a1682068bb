"""ROUGE-L against a large pool: verdicts equal to comparing with every text, in milliseconds.

ROUGE-L here is the F-measure 2 L / (m + n) of the longest common subsequence L of two texts of m
and n words [Lin 2004; the novelty filter of 2212.10560]. L is at most the number of words that the
texts share, counted with multiplicity; that bound is cheap to compute for all texts at once, and
only those whose bound reaches the limit are compared exactly, the most promising first.
"""

from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import LCSseq

from prompts.overlap import words_of

_MOST_COUNTED = 255
_FEW = 64
"""So many exact comparisons cost less than looking up another common word."""


@dataclass(frozen=True)
class Likest:
    """The pool's text that is most like another."""

    row: str
    score: float
    """ROUGE-L, 0..1."""


def rouge_l(first: str, second: str) -> float:
    """ROUGE-L of two texts; 0 if one has no words."""
    return _score(words_of(first), words_of(second))


class RougeIndex:
    """A growing pool of texts: an inverted index of words, 5 bytes for each word of a text."""

    def __init__(self) -> None:
        self._rows: list[str] = []
        self._texts: list[array[int]] = []
        """Numbers of each text's words, in order."""
        self._lengths = array("I")
        self._numbers: dict[str, int] = {}
        self._postings: list[tuple[array[int], array[int]]] = []
        """Of each word: the texts that hold it, ascending, and how often each does."""

    def add(self, row: str, text: str) -> None:
        """Puts a text into the pool, under its row's id."""
        words = array("I", (self._number(word) for word in words_of(text)))
        place = len(self._rows)
        self._rows.append(row)
        self._texts.append(words)
        self._lengths.append(len(words))
        for word, count in Counter(words).items():
            texts, counts = self._postings[word]
            texts.append(place)
            counts.append(min(count, _MOST_COUNTED))

    def likest(self, text: str, limit: float) -> Likest | None:
        """The text with the highest ROUGE-L, if that is `limit` or more; None: `text` is novel.

        Among equals the one that was added first. The same as comparing with every text.
        """
        words = words_of(text)
        if not words or not self._rows:
            return None
        # Words that no text holds still count as words, and match nothing.
        known = [self._numbers.get(word, len(self._postings)) for word in words]
        bounds = self._bounds(known, limit)
        candidates = np.flatnonzero(bounds >= limit)
        best: Likest | None = None
        best_place = -1
        for place in candidates[np.argsort(-bounds[candidates], kind="stable")].tolist():
            if best is not None and bounds[place] < best.score:
                break
            score = self._exact(known, place, max(limit, best.score if best else 0.0))
            if score < limit or (best is not None and (score, -place) <= (best.score, -best_place)):
                continue
            best, best_place = Likest(self._rows[place], score), place
        return best

    def __len__(self) -> int:
        return len(self._rows)

    def _number(self, word: str) -> int:
        number = self._numbers.setdefault(word, len(self._postings))
        if number == len(self._postings):
            self._postings.append((array("I"), array("B")))
        return number

    def _bounds(self, words: Sequence[int], limit: float) -> NDArray[np.float64]:
        """[pool] no text's ROUGE-L is above its bound.

        Words are looked up from the rarest on. The common ones, which nearly every text holds, are
        supposed to be shared by all as soon as that leaves few texts to compare.
        """
        lengths = np.frombuffer(self._lengths, np.uint32).astype(np.int32)
        counts = Counter(words)
        counts.pop(len(self._postings), None)
        shared, left = np.zeros(len(self._rows), np.int32), counts.total()
        needed = limit * len(words) / (2 - limit)
        for word, count in sorted(
            counts.items(), key=lambda found: len(self._postings[found[0]][0])
        ):
            self._count(word, count, shared)
            left -= count
            if left < needed or not left:
                bounds = _bound(shared + left, lengths, len(words))
                if not left or np.count_nonzero(bounds >= limit) <= _FEW:
                    return bounds
        return _bound(shared + left, lengths, len(words))

    def _count(self, word: int, count: int, shared: NDArray[np.int32]) -> None:
        """Adds to `shared` how many of a text's `count` words each text has too."""
        texts, counts = self._postings[word]
        places = np.frombuffer(texts, np.uint32)
        if count == 1:
            shared[places] += 1
            return
        found = np.frombuffer(counts, np.uint8).astype(np.int32)
        # A count that was cut at 255 may be any number above.
        shared[places] += np.where(found == _MOST_COUNTED, count, np.minimum(found, count))

    def _exact(self, words: Sequence[int], place: int, least: float) -> float:
        """The score; 0 if it is below `least`."""
        text = self._texts[place]
        total = len(words) + len(text)
        cutoff = max(0, int(least * total / 2) - 1)
        common = LCSseq.similarity(words, text, score_cutoff=cutoff)
        score = 2.0 * common / total
        return score if score >= least else 0.0


def _bound(
    shared: NDArray[np.int32], lengths: NDArray[np.int32], words: int
) -> NDArray[np.float64]:
    bounds: NDArray[np.float64] = 2.0 * np.minimum(shared, lengths) / (words + lengths)
    return bounds


def _score(first: Sequence[str], second: Sequence[str]) -> float:
    if not first or not second:
        return 0.0
    return 2.0 * LCSseq.similarity(first, second) / (len(first) + len(second))
