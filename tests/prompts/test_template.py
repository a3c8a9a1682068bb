import pytest

from prompts.spec import COT_TEMPLATE, ICL_TEMPLATE, IF_TEMPLATE
from prompts.template import TemplateError, compile_template, required_fields


@pytest.mark.parametrize(
    ("source", "required", "optional"),
    [
        (COT_TEMPLATE, {"question"}, set()),
        (IF_TEMPLATE, {"instruction"}, {"input"}),
        ("{% if a and not b or c > 1 %}{{ a }}{% endif %}", {"c"}, {"a", "b"}),
        ("{% if a %}{% elif b %}{{ c }}{% endif %}", {"c"}, {"a", "b"}),
        ("{{ a if a else b }}", {"b"}, {"a"}),
        ("{{ a | default('none') }}", set(), {"a"}),
        ("{{ a | default('none') }}{{ a }}", {"a"}, set()),
        ("{% for x in range(n) %}{% if x %}{{ x }}{% endif %}{% endfor %}", {"n"}, set()),
        ("{% set a = b %}{{ a }}", {"b"}, set()),
        ("no field", set(), set()),
    ],
)
def test_the_fields_of_a_template(source: str, required: set[str], optional: set[str]) -> None:
    template = compile_template(source, demonstrations=True)
    assert (template.required, template.optional) == (required, optional)
    assert required_fields(source, demonstrations=True) == required


@pytest.mark.parametrize(
    "source",
    [
        IF_TEMPLATE,
        "{% if a and not b %}{{ a }}{% else %}{{ b }}{% endif %}",
        "{{ a if a else 1 }}{{ b | default(2) }}",
        "{% if a %}{{ a }}{% endif %}{{ a | upper }}",
    ],
)
def test_optional_fields_may_be_missing_or_null(source: str) -> None:
    template = compile_template(source)
    needed = dict.fromkeys(template.required, "x")
    nulls = dict.fromkeys(template.optional)
    assert template.render(needed) == template.render({**needed, **nulls})


def test_demonstrations_are_the_plans_and_their_fields_are_known() -> None:
    template = compile_template(ICL_TEMPLATE, demonstrations=True)
    assert template.required == {"input"}
    assert template.demonstration_fields == {"input", "output"}
    demos = ({"input": 1, "output": 2}, {"input": 3, "output": 4})
    expected = "Input: 1\nOutput: 2\n\nInput: 3\nOutput: 4\n\nInput: 5\nOutput:"
    assert template.render({"input": 5}, demos) == expected


def test_fields_of_filtered_demonstrations_and_by_subscript_are_known() -> None:
    source = "{% for d in demonstrations | reverse %}{{ d.items }}{{ d['my key'] }}{% endfor %}"
    template = compile_template(source, demonstrations=True)
    assert template.demonstration_fields == {"items", "my key"}
    assert template.render({}, ({"items": "a", "my key": "b"},)) == "ab"


def test_elsewhere_demonstrations_are_a_field() -> None:
    template = compile_template("{{ demonstrations }}")
    assert template.required == {"demonstrations"}
    assert template.render({"demonstrations": "mine"}) == "mine"


def test_a_syntax_error_names_its_line() -> None:
    with pytest.raises(TemplateError, match="line 2"):
        compile_template("{{ a }}\n{% if %}")
    with pytest.raises(TemplateError, match="nosuchfilter"):
        compile_template("{{ a | nosuchfilter }}")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{{ a }}{{ missing }}", "missing"),
        ("{{ a.b.c }}", "b"),
        ("{{ a + 1 }}", "can't be rendered"),
        ("{{ 1 / 0 }}", "zero"),
        ("{{ a.__class__.__mro__ }}", "unsafe"),
        ("{{ ''.__class__ }}", "unsafe"),
    ],
)
def test_what_cannot_be_rendered_says_why(source: str, words: str) -> None:
    with pytest.raises(TemplateError, match=words):
        compile_template(source).render({"a": "text"})


def test_nothing_is_escaped() -> None:
    assert compile_template("{{ a }}").render({"a": "<b> & 'c'"}) == "<b> & 'c'"
