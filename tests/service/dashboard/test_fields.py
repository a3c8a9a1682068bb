"""The form beside the YAML: its inputs and the spec's fields."""

import httpx

from prompts.spec import COT_TEMPLATE, Sampling
from service.dashboard import fields
from service.site import Site
from service.spec import job_spec
from tests.service.dashboard.asked import Seen
from tests.service.given import add_file
from trainer.spec import Optimization


def test_every_form_fits_a_job(site: Site) -> None:
    """No input writes a field that the spec doesn't have."""
    seeds = add_file(site, "{}\n")
    values = {
        "build.teacher": "t",
        "build.seeds": seeds,
        "build.template": "{{ question }}{% for d in demonstrations %}{{ d.input }}{% endfor %}",
        "train.method": "forward_kl",
    }
    for kind, form in fields.FORMS.items():
        given = {
            field.path: values.get(field.path)
            or (field.choices[0] if field.choices else "1" if field.input == "number" else "x")
            for field in form
        }
        if kind == "icl":
            given["build.pool"] = ""
        spec = fields.merged(fields.STARTS[kind], kind, given)
        assert fields.form_of(spec) == kind
        job_spec.validate_python(spec)
        emptied = fields.merged(spec, kind, dict.fromkeys(given, ""))
        assert all(fields.value_at(emptied, field.path) is None for field in form)


async def test_empty_inputs_show_what_holds(browser: httpx.AsyncClient) -> None:
    for kind, path, default in (
        ("cot", "build.template", COT_TEMPLATE),
        ("icl", "build.sampling.max_tokens", str(Sampling().max_tokens)),
        ("train", "train.optimization.learning_rate", str(Optimization().learning_rate)),
    ):
        seen = Seen((await browser.get(f"/jobs/new?kind={kind}")).text)
        found = [at["placeholder"] for _, at in seen.tags if at.get("name") == f"f.{path}"]
        assert found == [default]
    assert fields.shown_default("cot", "build.verify.kind") == "numeric"
    assert fields.shown_default("cot", "build.limit") == ""


def test_the_form_leaves_alone_what_it_cannot_show() -> None:
    spec = {"kind": "build", "build": {"kind": "cot", "verify": "none", "seeds": [{"q": 1}]}}
    shown = {"f.build.verify.kind": "", "f.build.name": "mine"}
    found = fields.merged(spec, "cot", {path[2:]: text for path, text in shown.items()})
    assert found["build"] == spec["build"] | {"name": "mine"}
