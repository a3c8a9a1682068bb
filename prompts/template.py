"""Prompt templates: sandboxed Jinja2 in which a missing field is an error, never an empty gap."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import SimpleNamespace
from typing import Annotated, Any

import jinja2
from jinja2 import meta, nodes
from pydantic import AfterValidator

from prompts.sandbox import (
    LONGEST_SOURCE,
    LONGEST_TEXT,
    begin,
    count_all,
    forbidden,
    look_at_clock,
    make_environment,
)

DEMONSTRATIONS = "demonstrations"
"""The one variable of a template that doesn't come from the seed."""

_ENVIRONMENT = make_environment()
_AT_RENDER = (
    jinja2.TemplateError,
    TypeError,
    ValueError,
    ArithmeticError,
    LookupError,
    AttributeError,
    RecursionError,
    MemoryError,
)


class TemplateError(ValueError):
    """A template that can't be compiled, or not be rendered with the fields it was given."""


@dataclass(frozen=True)
class Template:
    """A compiled template and the fields of a seed that it reads."""

    required: frozenset[str]
    """Must be in the seed, and not empty."""
    optional: frozenset[str]
    """Tested by an `if`, or used under `default` only."""
    blank: frozenset[str]
    """The optional fields that read as the empty text when they are missing."""
    demonstration_fields: frozenset[str]
    """What a loop over `demonstrations` reads of each."""
    shows_demonstrations: bool
    _compiled: jinja2.Template = field(repr=False, compare=False)

    @property
    def fields(self) -> frozenset[str]:
        """All fields of a seed that can change the text."""
        return self.required | self.optional

    def render(
        self, seed: Mapping[str, Any], demonstrations: tuple[Mapping[str, Any], ...] = ()
    ) -> str:
        """The text for one seed. Raises TemplateError, which says what was missing or wrong."""
        values = {name: seed[name] for name in self.fields if seed.get(name) is not None}
        blanks = {name: "" for name in self.blank if name not in values}
        demos = {DEMONSTRATIONS: [SimpleNamespace(**demo) for demo in demonstrations]}
        shown = {**values, **blanks, **(demos if self.shows_demonstrations else {})}
        try:
            return _bounded(self._compiled.generate(shown))
        except _AT_RENDER as error:
            raise TemplateError(f"the template can't be rendered: {error}") from error


@lru_cache(maxsize=256)
def compile_template(source: str, demonstrations: bool = False) -> Template:
    """Compiles `source`. Raises TemplateError with the line of a syntax error.

    With `demonstrations` the variable of that name is a list of the plan's, else a seed's field.
    """
    if len(source) > LONGEST_SOURCE:
        raise TemplateError(f"a template of {len(source):,} characters; {LONGEST_SOURCE:,} go")
    try:
        tree = _ENVIRONMENT.parse(source)
        problem = forbidden(tree)
        if problem is not None:
            raise TemplateError(problem)
        parsed = _ENVIRONMENT.parse(source)
        count_all(parsed)
        begin()  # What is constant is made now.
        compiled = _ENVIRONMENT.from_string(parsed)
    except jinja2.TemplateSyntaxError as error:
        problem = f"the template has a syntax error in line {error.lineno}: {error.message}"
        raise TemplateError(problem) from None
    except RecursionError:
        raise TemplateError("the template is nested too deeply") from None
    names = frozenset(meta.find_undeclared_variables(tree))
    fields = names - {DEMONSTRATIONS} if demonstrations else names
    blank = fields & frozenset(_tested(tree))
    optional = blank | (fields & _under_default_only(tree))
    shows = demonstrations and DEMONSTRATIONS in names
    of_demos = frozenset(_demonstration_fields(tree)) if shows else frozenset()
    return Template(fields - optional, optional, blank, of_demos, shows, compiled)


def required_fields(source: str, demonstrations: bool = False) -> frozenset[str]:
    """The fields that a seed must have for this template."""
    return compile_template(source, demonstrations).required


def _bounded(parts: Iterator[str]) -> str:
    kept: list[str] = []
    length = 0
    begin()
    for part in parts:
        kept.append(part)
        look_at_clock()
        length += len(part)
        if length > LONGEST_TEXT:
            raise ValueError(f"it grows beyond {LONGEST_TEXT:,} characters")
    return "".join(kept)


def _check_source(source: str) -> str:
    compile_template(source)
    if not source.strip():
        raise TemplateError("the template is empty")
    return source


TemplateSource = Annotated[str, AfterValidator(_check_source)]
"""A template in a spec: refused with its line if its syntax is wrong."""


def _tested(tree: nodes.Template) -> Iterator[str]:
    """Names whose truth an `if` asks for: missing may then mean empty, and nothing can break.

    Comparisons (`if n > 3`) don't count: a blank in place of `n` would change their meaning.
    """
    for branch in tree.find_all((nodes.If, nodes.CondExpr)):
        if isinstance(branch, nodes.If | nodes.CondExpr):
            yield from _truths(branch.test)


def _truths(test: nodes.Node) -> Iterator[str]:
    if isinstance(test, nodes.Name):
        yield test.name
    elif isinstance(test, nodes.Not):
        yield from _truths(test.node)
    elif isinstance(test, nodes.And | nodes.Or):
        yield from _truths(test.left)
        yield from _truths(test.right)


def _under_default_only(tree: nodes.Template) -> frozenset[str]:
    loads = [name.name for name in tree.find_all(nodes.Name) if name.ctx == "load"]
    guarded = [
        part.node.name
        for part in tree.find_all(nodes.Filter)
        if part.name in ("default", "d") and isinstance(part.node, nodes.Name)
    ]
    return frozenset(name for name in guarded if loads.count(name) == guarded.count(name))


def _demonstration_fields(tree: nodes.Template) -> Iterator[str]:
    for loop in tree.find_all(nodes.For):
        listed = {name.name for name in loop.iter.find_all(nodes.Name)}
        if isinstance(loop.iter, nodes.Name):
            listed.add(loop.iter.name)
        if DEMONSTRATIONS in listed and isinstance(loop.target, nodes.Name):
            yield from _attributes(loop, loop.target.name)


def _attributes(loop: nodes.For, name: str) -> Iterator[str]:
    for attribute in loop.find_all(nodes.Getattr):
        if isinstance(attribute.node, nodes.Name) and attribute.node.name == name:
            yield attribute.attr
    for item in loop.find_all(nodes.Getitem):
        of_loop = isinstance(item.node, nodes.Name) and item.node.name == name
        if of_loop and isinstance(item.arg, nodes.Const) and isinstance(item.arg.value, str):
            yield item.arg.value
