"""Templates that try to escape, or to burn time or memory."""

import time
import tracemalloc

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
        ("{{ b | random }}", "random"),
        ("{% autoescape true %}{{ a }}{% endautoescape %}", "autoescape"),
        ("{% set n = namespace(x=1) %}{{ n.x }}", "namespace"),
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
        "{{ n|dictsort }}",
    ],
)
def test_templates_that_burn_or_escape_end_soon_with_an_error(source: str) -> None:
    started = time.process_time()
    with pytest.raises(TemplateError, match="can't be rendered"):
        compile_template(source).render(
            {"a": "text", "n": 10**9, "long": "word " * 200, "huge": "a" * 30_000_000}
        )
    assert time.process_time() - started < 10


def doublings(step: str, times: int = 40, start: str = "'aaaaaaaa'") -> str:
    """A template that makes its text anew so many times, shown by its length alone."""
    return f"{{% set a = {start} %}}" + f"{{% set a = {step} %}}" * times + "{{ a|length }}{{ n }}"


@pytest.mark.slow
@pytest.mark.parametrize(
    "source",
    [
        doublings("a ~ a"),
        doublings("a + a"),
        doublings("a + a", start="[1]"),
        doublings("[a, a]"),
        doublings("(a, a)"),
        doublings("{1: a, 2: a}"),
        doublings("[a, a]|join"),
        doublings("''.join([a, a])"),
        doublings("a|replace('a', 'aa')"),
        doublings("a.replace('a', 'aa')"),
        doublings("[a, a]|string"),
        doublings("a[:] ~ a[::1]"),
        "{% set a = 'x' * 10000 %}{{ (a ~ a ~ a)|replace('x', 'x' * 5000)|length }}{{ n }}",
        "{{ ('x' * 9999).replace('x', 'x' * 9999)|length }}{{ n }}",
        "{{ (range(1000)|join('x' * 10000) ~ range(1000)|join('x' * 10000))|length }}{{ n }}",
        "{{ ([['x' * 9999] * 9999] * 9999)|length }}{{ n }}",
        "{{ (['x'] * 9999)|map('replace', 'x', 'x' * 9999)|list|length }}{{ n }}",
        "{{ ([[1] * 999] * 999)|sum(start=[])|length }}{{ n }}",
        "{{ [1]|tojson(indent=10**9)|length }}{{ n }}",
        "{{ 1.5|round(10**9, 'ceil') }}{{ n }}",
        "{{ range(1000)|join('a b ' * 99)|title|length }}{{ n }}",
        "{{ ('9' * 9999)|int(base=16) }}{{ n }}",
        "{{ (1).to_bytes(10**9)|length }}{{ n }}",
        "{% set a %}{% for i in range(999) %}{% for j in range(100) %}"
        + "x" * 9000
        + "{% endfor %}"
        "{% endfor %}{% endset %}{{ a|length }}{{ n }}",
        "{% set a %}{% for i in range(999) %}{{ long * 10 }}{% endfor %}{% endset %}"
        "{{ a|length }}{{ n }}",
        "{% filter replace('x', 'x' * 9999) %}{{ 'x' * 9999 }}{% endfilter %}{{ n }}",
        doublings("[a, a]") + "{{ a == [a, a] }}",
    ],
)
def test_what_is_made_on_the_way_is_bounded(source: str) -> None:
    template = compile_template(source)
    tracemalloc.start()
    started = time.process_time()
    with pytest.raises(TemplateError, match="can't be rendered"):
        template.render({"n": 1, "long": "word " * 200})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200_000_000
    assert time.process_time() - started < 10


def test_what_templates_do_every_day_still_goes() -> None:
    source = (
        "{% for m in turns if m.role == 'user' %}{{ loop.cycle('a', 'b') }}{{ m.content[:2] }}"
        "{{ m.get('x', '-') }}{{ '; ' if not loop.last }}{% endfor %}"
        "{{ turns|map(attribute='role')|join(', ') }} {{ ', '.join(['x', 'y']) }}"
        " {{ turns[0]|tojson }} {{ {'k': [1]}|tojson(indent=1) }}"
        " {{ 'a-b'.replace('-', '+').split('+')|list }} {{ [1, 2]|sum }} {{ 2.345|round(2) }}"
        " {{ '12'|int + 1 }} {{ [3, 1]|sort|first }} {{ missing|default('none') }}"
        "{% set x, y = 1, 2 %} {{ x + y }} {% set b %}<{{ x }}>{% endset %}{{ b ~ ([x] + [y]) }}"
    )
    turns = [{"role": "user", "content": "hello"}, {"role": "user", "content": "you"}]
    assert compile_template(source).render({"turns": turns}) == (
        'ahe-; byo-user, user x, y {"content": "hello", "role": "user"} {\n "k": [\n  1\n ]\n}'
        " ['a', 'b'] 3 2.35 13 1 none 3 <1>[1, 2]"
    )


def test_a_long_row_may_be_shown_whole() -> None:
    text = "word " * 700_000
    assert len(compile_template("{{ t|trim|replace('w', 'W') }}").render({"t": text})) > 3_000_000


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
