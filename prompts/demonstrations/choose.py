"""From a pool and a query to the demonstrations of one prompt."""

from itertools import islice

from prompts.demonstrations.pool import Pool, query_text
from prompts.demonstrations.selectors import SELECTORS, Query
from prompts.record import Seed
from prompts.spec import Shots
from prompts.template import compile_template


def choose(pool: Pool, spec: Shots, query: Seed, key: str) -> tuple[Seed, ...]:
    """The demonstrations for `query`, whose input key is `key`, the best first; fewer if the pool
    has too few."""
    template = compile_template(spec.template, demonstrations=True)
    asked = Query(spec, query, key, query_text(template, query))
    order = SELECTORS[spec.selector.kind](pool, asked)
    allowed = (index for index in order if asked.allows(pool, index))
    return tuple(pool.entries[index] for index in islice(allowed, spec.demonstrations))


def arrange(spec: Shots, query: Seed, chosen: tuple[Seed, ...]) -> tuple[Seed, ...]:
    """The chosen ones, best first, in the order in which the prompt shows them."""
    if spec.order == "reversed":
        return chosen[::-1]
    if spec.order == "random":
        shuffled = list(chosen)
        Query(spec, query, "", "").generator("order").shuffle(shuffled)
        return tuple(shuffled)
    return chosen
