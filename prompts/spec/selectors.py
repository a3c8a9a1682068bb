"""How demonstrations are selected: a union on `kind`."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from prompts.record import Frozen


class RandomSelector(Frozen):
    """Drawn without replacement; a function of `selector_seed` and the row's id."""

    kind: Literal["random"] = "random"


class LabelBalancedSelector(Frozen):
    """Drawn like random, from each label in turn."""

    kind: Literal["label_balanced"] = "label_balanced"


class Bm25Selector(Frozen):
    """The most similar by BM25 over the words of the template's fields."""

    kind: Literal["bm25"] = "bm25"


class EmbeddingSelector(Frozen):
    """The most similar by the cosine of embeddings."""

    kind: Literal["embedding"] = "embedding"
    embedder: str = Field(min_length=1)
    """Name of a registered teacher whose server has `/v1/embeddings`."""


class MmrSelector(Frozen):
    """Maximal marginal relevance: similar to the query and unlike each other (Carbonell and
    Goldstein, 1998), by the cosine of embeddings."""

    kind: Literal["mmr"] = "mmr"
    embedder: str = Field(min_length=1)
    """Name of a registered teacher whose server has `/v1/embeddings`."""
    relevance: float = Field(0.5, ge=0, le=1)
    """1 looks at similarity to the query alone, 0 at difference among the chosen alone."""


def _from_word(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


SelectorSpec = Annotated[
    RandomSelector | LabelBalancedSelector | Bm25Selector | EmbeddingSelector | MmrSelector,
    Field(discriminator="kind"),
    BeforeValidator(_from_word),
]
"""A kind alone may stand for its defaults: `selector: bm25`."""

SIMILAR = ("bm25", "embedding", "mmr")
"""Selectors that look at the query."""
