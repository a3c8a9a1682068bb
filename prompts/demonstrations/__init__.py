"""Demonstrations: which labelled examples stand before a query."""

from prompts.demonstrations.choose import arrange, choose
from prompts.demonstrations.pool import LABEL, Embed, Pool, group_of, label_field, make_pool
from prompts.demonstrations.selectors import SELECTORS, Query

__all__ = [
    "LABEL",
    "SELECTORS",
    "Embed",
    "Pool",
    "Query",
    "arrange",
    "choose",
    "group_of",
    "label_field",
    "make_pool",
]
