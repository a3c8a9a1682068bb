"""Personal data in a text, found and masked, by presidio's pattern recognizers; no language model
is loaded."""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

LONGEST_TEXT = 200_000
"""Characters that are searched, the first ones."""


def find_personal_data(text: str, entities: Sequence[str], min_score: float) -> dict[str, int]:
    """How often each sort of personal data is in the text, those found at least as surely as
    `min_score`."""
    return dict(
        Counter(entity for _, _, entity in _spans(text[:LONGEST_TEXT], entities, min_score))
    )


def mask_personal_data(text: str, entities: Sequence[str], min_score: float) -> str:
    """The text with what `find_personal_data` counts replaced by its sort: `[EMAIL_ADDRESS]`.

    What overlaps is replaced as one, under the sort that begins first. Raises ValueError for a text
    that is longer than what is searched.
    """
    if len(text) > LONGEST_TEXT:
        raise ValueError(f"a text of {len(text):,} characters; {LONGEST_TEXT:,} are searched")
    parts, at = [], 0
    for start, end, entity in sorted(_spans(text, entities, min_score)):
        if start >= at:
            parts += [text[at:start], f"[{entity}]"]
        at = max(at, end)
    return "".join([*parts, text[at:]])


def _spans(text: str, entities: Sequence[str], min_score: float) -> list[tuple[int, int, str]]:
    """Start, end and sort of each find, sort by sort."""
    return [
        (result.start, result.end, entity)
        for entity in entities
        for result in _recognizer(entity).analyze(text, [entity], None) or ()
        if result.score >= min_score
    ]


@lru_cache(maxsize=16)
def _recognizer(entity: str) -> Any:
    # Late: presidio imports half a language toolkit, and few builds ask for it.
    from presidio_analyzer import predefined_recognizers as known
    from tldextract import TLDExtract

    # By itself the e-mail recognizer would fetch the list of public suffixes from the network.
    suffixes = TLDExtract(cache_dir=None, suffix_list_urls=())

    class OfflineEmail(known.EmailRecognizer):
        def validate_result(self, pattern_text: str) -> bool:
            """Whether the domain ends in a public suffix."""
            return suffixes(pattern_text).fqdn != ""

    recognizers: dict[str, Callable[[], Any]] = {
        "EMAIL_ADDRESS": OfflineEmail,
        "PHONE_NUMBER": known.PhoneRecognizer,
        "CREDIT_CARD": known.CreditCardRecognizer,
        "IBAN_CODE": known.IbanRecognizer,
        "IP_ADDRESS": known.IpRecognizer,
        "CRYPTO": known.CryptoRecognizer,
        "US_SSN": known.UsSsnRecognizer,
    }
    return recognizers[entity]()
