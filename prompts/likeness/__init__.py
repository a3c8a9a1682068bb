"""Whether a text is like others of a pool: ROUGE-L novelty, and near-duplicates by MinHash."""

from prompts.likeness.near import NearIndex
from prompts.likeness.rouge import Likest, RougeIndex, rouge_l

__all__ = ["Likest", "NearIndex", "RougeIndex", "rouge_l"]
