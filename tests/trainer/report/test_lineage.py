"""The drawing of what was made from what."""

import re
import xml.etree.ElementTree as ET

from tests.trainer.report.made_up import made_up_chain
from trainer.report.chain import Artifact
from trainer.report.lineage import draw_lineage

SVG = "{http://www.w3.org/2000/svg}"


def boxes(svg: str) -> list[tuple[float, float, float, float]]:
    """Left, top, right and bottom of each node."""
    found = [rect for rect in ET.fromstring(svg).iter(f"{SVG}rect") if "x" in rect.attrib]
    sides = [[float(rect.attrib[name]) for name in ("x", "y", "width", "height")] for rect in found]
    return [(x, y, x + width, y + height) for x, y, width, height in sides]


def test_every_artifact_and_the_recipe_have_a_box_and_none_overlap():
    chain = made_up_chain()

    plot = draw_lineage(chain)

    assert plot is not None
    found = boxes(plot.svg)
    assert len(found) == len(chain.lineage) + 1
    for number, (left, top, right, bottom) in enumerate(found):
        for other in found[number + 1 :]:
            apart = right <= other[0] or other[2] <= left or bottom <= other[1] or other[3] <= top
            assert apart


def test_what_is_made_stands_below_what_it_was_made_from():
    chain = made_up_chain()

    plot = draw_lineage(chain)

    assert plot is not None
    tops = dict(zip(["recipe", *(node.id for node in chain.lineage)], boxes(plot.svg), strict=True))
    for node in chain.lineage:
        for above in node.inputs:
            assert tops[above][1] < tops[node.id][1]


def test_an_input_that_is_not_listed_is_drawn_with_a_dashed_line():
    lineage = (Artifact(id="dataset", kind="dataset", name="d", inputs=("lost",)),)

    plot = draw_lineage(made_up_chain(lineage=lineage))

    assert plot is not None
    assert len(re.findall("stroke-dasharray", plot.svg)) == 1
    assert "not listed" in plot.svg


def test_a_circle_is_drawn_too():
    lineage = (
        Artifact(id="a", kind="model", name="a", inputs=("b",)),
        Artifact(id="b", kind="model", name="b", inputs=("a", "b")),
    )

    plot = draw_lineage(made_up_chain(lineage=lineage))

    assert plot is not None
    assert len(boxes(plot.svg)) == 3


def test_without_artifacts_there_is_no_drawing():
    assert draw_lineage(made_up_chain(lineage=())) is None
