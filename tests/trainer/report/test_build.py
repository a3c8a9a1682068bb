"""The report as files: complete, the same in every run, safe, and true to its data."""

import hashlib
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.trainer.report.made_up import made_up_chain
from trainer.errors import BadInput
from trainer.events import silent
from trainer.report.build import run
from trainer.report.chain import Artifact, Chain, ModelRow, Part, Recipe
from trainer.report.derive import derive

HOSTILE = "\x1b[31m名<script>alert('x')</script> | **b** ]] & \" $a_1$ --> \n# top"


class Page(HTMLParser):
    """Tables by id, every tag and attribute, and the text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self._rows: list[list[str]] = []
        self._cell: list[str] | None = None
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag == "table":
            self._rows = self.tables.setdefault(dict(attrs).get("id") or "", [])
        if tag == "tr":
            self._rows.append([])
        if tag in ("td", "th"):
            self._cell = []

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th") and self._cell is not None:
            self._rows[-1].append(" ".join(self._cell))
            self._cell = None

    def handle_data(self, data: str) -> None:
        if self._cell is not None and data.strip():
            self._cell.append(data.strip())


def report(chain: Chain, tmp_path: Path, name: str = "report") -> Path:
    """The directory of a chain's report."""
    chain_file = tmp_path / f"{name}.json"
    chain_file.write_text(chain.model_dump_json())
    run(chain_file, tmp_path / name, silent)
    return tmp_path / name


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """The made-up chain's report; tests only read it."""
    return report(made_up_chain(), tmp_path_factory.mktemp("report"))


def data(made: Path) -> Any:
    """report.json."""
    return json.loads((made / "report.json").read_text())


def page(made: Path) -> Page:
    """report.html, parsed."""
    return Page((made / "report.html").read_text())


@pytest.mark.slow
def test_the_manifest_lists_every_file_with_its_digest(made):
    manifest = json.loads((made / "manifest.json").read_text())

    there = {str(path.relative_to(made)) for path in made.rglob("*") if path.is_file()}
    assert set(manifest["files"]) == there - {"manifest.json"}
    for name, listed in manifest["files"].items():
        assert hashlib.sha256((made / name).read_bytes()).hexdigest() == listed["sha256"]


@pytest.mark.slow
def test_the_same_chain_gives_the_same_bytes(made, tmp_path):
    again = report(made_up_chain(), tmp_path)

    for name in json.loads((made / "manifest.json").read_text())["files"]:
        assert (again / name).read_bytes() == (made / name).read_bytes(), name


def test_the_data_hold_the_chain_itself(made):
    assert Chain.model_validate(data(made)["chain"]) == made_up_chain()


def test_the_figures_of_the_page_are_those_of_the_data(made):
    models = data(made)["derived"]["models"]
    rows = {row[0]: row for row in page(made).tables["table-models"]}

    for model in models:
        label = model["label"] + ("" if model["passed"] is not False else " (stopped by its gate)")
        shown = rows[label]
        for column, skill in enumerate(("cot", "icl", "if"), start=1):
            figure = model["skills"][skill]
            share = figure["correct"] / figure["n"]
            ends = f"{figure['low'] * 100:.1f}–{figure['high'] * 100:.1f}"
            assert shown[column] == f"{share * 100:.1f}% {ends}"
        assert float(shown[6].rstrip("×")) == pytest.approx(model["bytes_of_teacher"], rel=5e-3)
        assert float(shown[7].replace(",", "")) == pytest.approx(model["tokens_per_s"], abs=0.5)


def test_the_gained_points_of_the_page_are_those_of_the_data(made):
    models = {model["label"]: model for model in data(made)["derived"]["models"]}

    rows = page(made).tables["table-steps"][1:]

    assert len(rows) == 5
    for row in rows:
        gained = models[row[0]]["gained"]["cot"]
        shown = [float(number.replace("−", "-")) for number in re.findall(r"[+−]?[\d.]+", row[2])]
        expected = [gained["share"] * 100, gained["low"] * 100, gained["high"] * 100]
        assert shown == pytest.approx(expected, abs=0.051)


def test_markdown_has_the_tables_of_the_page(made):
    found = (made / "report.md").read_text()

    assert "| student | 60.5% (53.6–67.0) | 26.0% (20.4–32.5) |" in found
    for row in page(made).tables["table-ends"][1:]:
        assert "| " + " | ".join(row).replace("_", "\\_") + " |" in found
    for name in re.findall(r"\]\((plots/[^)]+)\)", found):
        assert (made / name).is_file()


def test_the_page_needs_nothing_from_anywhere(made):
    found = page(made)

    assert not {"script", "link", "img", "iframe"} & set(found.tags)
    addresses = [value for name, value in found.attributes if name in ("href", "src", "xlink:href")]
    assert addresses
    beside = [address for address in addresses if not address.startswith("#")]
    assert len(beside) == len(set(beside)) == 7  # a page for each model, made with it
    assert all((made / address).is_file() for address in beside)
    source = (made / "report.html").read_text()
    assert "@import" not in source
    assert re.findall(r"url\((?!#)", source) == []


def test_a_page_for_each_model_has_its_figures_and_leads_back(made):
    pages = sorted((made / "models").glob("*.html"))
    assert [path.stem for path in pages] == [
        *("01-teacher", "02-student-base", "03-student", "04-wanda", "05-depth", "06-svd"),
        "07-svd-ptq",
    ]
    for path, model in zip(pages, data(made)["derived"]["models"], strict=True):
        parsed = Page(path.read_text())
        assert "script" not in parsed.tags
        assert [value for name, value in parsed.attributes if name == "href"] == ["../report.html"]
        cells = {row[0]: row[1] for rows in parsed.tables.values() for row in rows if len(row) > 1}
        assert cells["parameters"] == f"{model['parameters']:,}"
        assert cells["accuracy, cot"].split()[0] == f"{model['skills']['cot']['correct'] / 2:.1f}%"
        assert cells["prefill tokens/s"].startswith("—") is (model["prefill_tokens_per_s"] is None)
    svd = (made / "models" / "06-svd.html").read_text()
    assert "down_proj: 51" in svd  # what the method says
    assert "mean |Δ log p|" in svd
    stopped = (made / "models" / "05-depth.html").read_text()
    assert "not met: mean accuracy fell by 0.26" in stopped


def test_a_card_has_the_measured_table_and_what_a_hub_reads(made):
    card = (made / "models" / "06-svd.md").read_text()
    _, front, body = card.split("---\n", 2)
    assert yaml.safe_load(front) == {
        "library_name": "transformers",
        "tags": ["retort", "compression", "svd"],
    }
    assert "| accuracy, cot | 56.0% (49.1–62.7) |" in body
    assert "| bytes | 3.61 MB |" in body
    assert "| equal completions | 93.0% |" in body


def test_ids_are_unique_in_the_page(made):
    ids = [value for name, value in page(made).attributes if name == "id"]

    assert len(ids) == len(set(ids))


def test_every_drawing_says_in_words_what_it_shows(made):
    labels = [value for name, value in page(made).attributes if name == "aria-label"]

    assert any("Training loss goes from 2.356" in label for label in labels)
    assert all(plot["alt"] for plot in data(made)["plots"])


def hostile_chain() -> Chain:
    """A chain whose every name was chosen to do harm."""
    chain = made_up_chain()
    dataset = chain.dataset
    assert dataset is not None
    return made_up_chain(
        id=HOSTILE,
        fixture=False,
        recipe=Recipe(name=HOSTILE, text=HOSTILE),
        models=tuple(
            row.model_copy(update={"label": f"{row.id} {HOSTILE}"}) for row in chain.models
        ),
        dataset=dataset.model_copy(update={"name": HOSTILE, "rejected": {HOSTILE: 3}}),
        parts=(*chain.parts, Part(id=HOSTILE, kind=HOSTILE, state=HOSTILE, seconds=1)),
        lineage=(*chain.lineage, Artifact(id=HOSTILE, kind=HOSTILE, name=HOSTILE)),
        versions={HOSTILE: HOSTILE},
        notes=(HOSTILE,),
    )


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> Path:
    """The report of that chain; tests only read it."""
    return report(hostile_chain(), tmp_path_factory.mktemp("hostile"))


@pytest.mark.slow
def test_hostile_names_stay_words(hostile):
    parsed = page(hostile)
    assert "script" not in parsed.tags
    assert "alert('x')" in " ".join(cell for rows in parsed.tables.values() for row in rows for cell in row)  # noqa: E501  # fmt: skip
    for drawing in (hostile / "plots").iterdir():
        tags = {element.tag for element in ET.parse(drawing).iter()}
        assert not [tag for tag in tags if tag.endswith("script")]
    for each in (hostile / "models").glob("*.html"):
        assert "script" not in Page(each.read_text()).tags
    for each in (hostile / "models").glob("*.md"):
        assert "<script" not in each.read_text()
    written = (hostile / "report.md").read_text()
    body = written[: written.index("Recipe:")]
    assert "<script" not in body
    assert "\n# top" not in body


def test_hostile_names_break_no_table_of_the_markdown(hostile):
    found = (hostile / "report.md").read_text()

    table = found[found.index("## Models") :].split("\n\n")[1].splitlines()
    widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table}
    assert len(table) == 9
    assert len(widths) == 1


def test_a_chain_of_nothing_still_says_so(tmp_path):
    bare = Chain(
        id="c",
        recipe=Recipe(name="r"),
        models=(
            ModelRow(
                id="s", label="student", role="student", why={"measurement": "stopped before that"}
            ),
        ),
        why={"training": "the training was cancelled"},
    )

    found = report(bare, tmp_path)

    source = (found / "report.html").read_text()
    assert "the gap closed is not known: no measurement of teacher, base, student" in source
    assert "stopped before that" in source
    assert "the training was cancelled" in source
    assert "this chain built no dataset" in source
    rows = page(found).tables["table-models"]
    assert [cell[0] for cell in rows[1][1:]] == ["—"] * 5
    assert list((found / "plots").iterdir()) == []


@pytest.mark.slow
def test_every_dash_of_the_page_has_a_reason(made, tmp_path):
    chain = made_up_chain()
    bare = ModelRow(id="lost", label="lost", role="stage", source="nowhere")
    found = report(made_up_chain(models=(*chain.models[:3], bare)), tmp_path)

    for directory in (made, found):
        dashes = [
            cell
            for rows in page(directory).tables.values()
            for row in rows
            for cell in row
            if cell.startswith("—")
        ]
        assert dashes
        assert all(re.fullmatch(r"— \d+", cell) for cell in dashes)


def test_made_up_figures_are_labelled_so(made, tmp_path):
    real = report(made_up_chain(fixture=False, models=()), tmp_path)

    assert "Made-up figures" in (made / "report.html").read_text()
    assert "Made-up figures" in (made / "report.md").read_text()
    assert "Made-up" not in (real / "report.html").read_text()


def test_a_stopped_stage_says_why(made):
    source = (made / "report.html").read_text()

    assert "mean accuracy fell by 0.26, more than 0.10" in source
    assert data(made)["derived"]["smallest"] == "ptq"


@pytest.mark.parametrize("content", ["", "[]", '{"id": "c"}', "{not json"])
def test_what_is_no_chain_is_refused(content, tmp_path):
    chain_file = tmp_path / "chain.json"
    chain_file.write_text(content)

    with pytest.raises(BadInput, match="is not a chain"):
        run(chain_file, tmp_path / "report", silent)
    assert not (tmp_path / "report").exists()


def test_a_chain_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(BadInput, match="can't be read"):
        run(tmp_path / "none.json", tmp_path / "report", silent)


@pytest.mark.slow
def test_the_report_needs_no_torch():
    program = (
        "import sys, trainer.report.build, trainer.report.table; "
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_stage_that_saves_no_byte_is_not_called_the_smallest() -> None:
    chain = made_up_chain()

    found = derive(made_up_chain(models=chain.models[:4]))

    assert found.models[-1].label == "wanda"
    assert found.smallest is None
    assert found.detail == "No stage that met its gate made the student smaller."


def test_the_page_shows_what_the_student_said_first_and_last(made):
    rows = page(made).tables["table-samples"]
    assert rows[0] == ["prompt", "dataset's answer", "student, step 100", "student, step 800"]
    assert rows[1] == ["Ann has 3 apples and buys 4. How many?", "7", "The The The 1", "— 2"]
    found = (made / "report.md").read_text()
    assert "| 7 | The The The [1] | — [2] |" in found
    assert "[1] it met the limit of new tokens before its end" in found
