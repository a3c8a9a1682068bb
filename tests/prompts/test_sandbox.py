"""Templates that try to escape, or to burn time or memory."""

import time

import pytest

from prompts.template import TemplateError, compile_template


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "macros are not allowed"),
        ("{% include 'x' %}", "includes are not allowed"),
        ("{% import 'x' as y %}", "imports are not allowed"),
        ("{% extends 'x' %}", "extends are not allowed"),
        ("{% for a in b recursive %}{{ loop(a) }}{% endfor %}", "recursive loops"),
        (
            "{% for a in b %}{% for c in b %}{% for d in b %}x{% endfor %}{% endfor %}{% endfor %}",
            "more than 2 deep",
        ),
        ("{{ lipsum(n=10**9) }}", "lipsum"),
        ("x" * 100_001, "a template of 100,001 characters"),
        ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "nested too deeply|syntax error"),
        ("{% debug %}", "syntax error"),
        ("{{ a | center(9) }}", "center"),
    ],
)
def test_templates_that_are_refused_at_once(source: str, words: str) -> None:
    with pytest.raises(TemplateError, match=words):
        compile_template(source).render({"a": "text", "b": [1]})


@pytest.mark.slow
@pytest.mark.parametrize(
    "source",
    [
        "{{ 'x' * 10**9 }}",
        "{{ [1] * 10**8 }}",
        "{{ 10**9 * 'x' }}",
        "{{ 9 ** 999999999 }}",
        "{{ (10**60) * (10**60) }}",
        "{% for i in range(10**9) %}{% endfor %}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '{:1000000000}'.format(1) }}",
        "{{ 'x'.ljust(10**9) }}",
        "{{ 'x'.zfill(n) }}",
        "{% set f = 'x'.center %}{{ f(10**9) }}",
        "{% for i in range(1000) %}{% for j in range(1000) %}{{ long }}{% endfor %}{% endfor %}",
        "{% for i in range(999) %}{% for j in range(999) %}{% endfor %}{% endfor %}",
        "{% for i in long %}{% for j in long %}{% set k = i %}{% endfor %}{% endfor %}",
        "{% for i in range(999) %}{% set k = huge | replace('a', 'b') %}{% endfor %}",
        "{{ a.__class__.__base__.__subclasses__() }}",
        "{{ a['__cl' ~ 'ass__'] }}",
        "{{ (a|attr('__class__')).mro() }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ self._TemplateReference__context }}",
        "{{ ''.format_map({}) }}",
    ],
)
def test_templates_that_burn_or_escape_end_soon_with_an_error(source: str) -> None:
    started = time.process_time()
    with pytest.raises(TemplateError, match="can't be rendered"):
        compile_template(source).render(
            {"a": "text", "n": 10**9, "long": "word " * 200, "huge": "a" * 30_000_000}
        )
    assert time.process_time() - started < 10


def test_ordinary_templates_are_rendered() -> None:
    source = (
        "{% for r in rows %}{% for c in r %}{{ c * 2 }},{% endfor %};{% endfor %}"
        "{{ '-' * 3 }}{{ 7 % 4 }}{{ 2 ** 3 }}{{ range(3) | join(' ') }}{{ a.upper() | trim }}"
    )
    text = compile_template(source).render({"rows": [[1, 2], [3]], "a": "b "})
    assert text == "2,4,;6,;---380 1 2B"


def test_each_prompt_has_its_own_bounds() -> None:
    source = "{% for i in range(900) %}{% for j in range(100) %}{% endfor %}{% endfor %}{{ a }}"
    template = compile_template(source)
    assert [template.render({"a": n}) for n in "xyz"] == ["x", "y", "z"]
