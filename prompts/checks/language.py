"""Which language a text is in."""

from functools import lru_cache
from typing import Any

LONGEST_TEXT = 20_000
"""Characters that are looked at."""


def likely_language(text: str) -> tuple[str, float]:
    """(ISO 639-1 code, probability), by py3langid."""
    language, probability = _identifier().classify(text[:LONGEST_TEXT])
    return str(language), float(probability)


def known_languages() -> frozenset[str]:
    """The codes that can be told apart."""
    return frozenset(_identifier().labels)


@lru_cache(maxsize=1)
def _identifier() -> Any:
    # Late: the model takes a while to read, and few builds ask for it.
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
