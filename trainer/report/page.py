"""The page, in HTML and in Markdown, from one set of tables and drawings."""

import re
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from trainer.compress.report import StageReport
from trainer.report import text
from trainer.report.caveats import caveats
from trainer.report.chain import Chain, Recipe
from trainer.report.derive import Derived
from trainer.report.drawing import FORBIDDEN, Plot
from trainer.report.figures import named_apart
from trainer.report.model_page import FOLDER, model_pages
from trainer.report.palette import DARK, LIGHT, css, themed
from trainer.report.said import samples_table
from trainer.report.sections import all_tables

SECTIONS = {
    "rows": "dataset",
    "training-loss": "training",
    "wall-time": "time",
    "lineage": "lineage",
}
"""Plot -> the section it stands in; sweeps stand with the stages, all others with the models."""


def html(chain: Chain, derived: Derived, plots: tuple[Plot, ...]) -> str:
    """One file that needs nothing else: styles and drawings within, no script, no address."""
    environment = _environment(autoescape=True)
    drawings = [
        {"title": plot.title, "name": plot.name, "drawing": Markup(themed(plot.svg))}
        for plot in plots
    ]
    return environment.get_template("report.html.j2").render(
        **_facts(chain, derived, drawings), style=_style(environment)
    )


def markdown(chain: Chain, derived: Derived, plots: tuple[Plot, ...]) -> str:
    """The same tables; drawings are files beside it."""
    drawings = [{"name": plot.name, "alt": plot.alt} for plot in plots]
    rendered = (
        _environment(autoescape=False)
        .get_template("report.md.j2")
        .render(**_facts(chain, derived, drawings))
    )
    return re.sub(r"\n{3,}", "\n\n", rendered).strip() + "\n"


def page_files(chain: Chain, derived: Derived) -> dict[str, str]:
    """A page and a card (Markdown, with what a hub reads of it) for each model, by file."""
    pages, environment = _environment(autoescape=True), _environment(autoescape=False)
    named = named_apart(chain)
    samples, style = samples_table(chain.training), _style(pages)
    files = {}
    for one in model_pages(named, derived):
        given = {"chain": named, "one": one, "samples": samples}
        page, card = (
            made.get_template(f"model.{ending}.j2")
            for made, ending in ((pages, "html"), (environment, "md"))
        )
        files[one.address] = page.render(**given, style=style)
        rendered = re.sub(r"\n{3,}", "\n\n", card.render(**given))
        files[f"{FOLDER}/{one.name}.md"] = rendered.strip() + "\n"
    return files


def _style(environment: Environment) -> Markup:
    style = environment.from_string(_source(environment, "style.css"))
    return Markup(style.render(light=Markup(css(LIGHT)), dark=Markup(css(DARK))))


def _facts(chain: Chain, derived: Derived, drawings: list[dict[str, Any]]) -> dict[str, Any]:
    sections: dict[str, list[dict[str, Any]]] = {
        name: [] for name in ("models", "stages", "dataset", "training", "time", "lineage")
    }
    named = named_apart(chain)
    for drawing in drawings:
        name = drawing["name"]
        section = "stages" if name.startswith("sweep-") else SECTIONS.get(name, "models")
        sections[section].append(drawing)
    return {
        "chain": named,
        "derived": derived,
        "tables": all_tables(named, derived),
        "pages": model_pages(named, derived),
        "plots": sections,
        "caveats": caveats(chain),
        "elapsed": text.duration(derived.seconds) if derived.seconds is not None else None,
    }


def _environment(autoescape: bool) -> Environment:
    environment = Environment(
        loader=PackageLoader("trainer.report"),
        autoescape=autoescape,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters["md"] = escape_markdown
    environment.filters["stage_text"] = _stage_text
    environment.filters["recipe_text"] = _recipe_text
    return environment


def _source(environment: Environment, name: str) -> str:
    if environment.loader is None:
        raise RuntimeError("the environment was made with a loader")
    return environment.loader.get_source(environment, name)[0]


def escape_markdown(words: str) -> str:
    """Words that stay words: no markup, no HTML, no table cell of their own, one line."""
    line = re.sub(FORBIDDEN, "", " ".join(str(words).split()))
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|#!])", r"\\\1", line)


def _stage_text(stage: StageReport) -> str:
    return _yaml({"spec": stage.spec, "details": stage.details})


def _recipe_text(recipe: Recipe) -> str:
    return recipe.text.rstrip() if recipe.text.strip() else _yaml(recipe.spec)


def _yaml(value: dict[str, Any]) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=88).rstrip()
