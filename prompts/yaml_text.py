"""Recipes as people write them: YAML in which only `true` and `false` are truth values.

The older YAML that the library reads takes on, off, yes and no for truth values too, in keys as
well: `on: start`, the field of a stage, would come out as `{True: "start"}`.
"""

import re
from typing import Any

import yaml

TRUTH = "tag:yaml.org,2002:bool"


class _Loader(yaml.SafeLoader):
    """The safe loader with truth values of YAML 1.2."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != TRUTH]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    TRUTH, re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)


def read_yaml(text: str) -> Any:
    """The document in `text`. Raises yaml.YAMLError."""
    return yaml.load(text, _Loader)
