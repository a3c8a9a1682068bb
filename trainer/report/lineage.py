"""The lineage as a drawing: what was made from what, from recipe to bytes, in layers downwards.

Layers by longest path, long edges through places of their own, order by barycentres (Sugiyama,
1981): the usual recipe, small enough to need no graph program.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

from trainer.report import text
from trainer.report.chain import Artifact, Chain
from trainer.report.drawing import INK, PAPER, SOFT, Plot, alone, shorten
from trainer.report.palette import LIGHT

WIDTH, HEIGHT, BETWEEN, BELOW = 148, 46, 14, 44
BEND = 18
"""Width of the place that a long edge takes in a layer it passes."""
SWEEPS = 8
COLOURS = {"recipe": "--purple", "dataset": "--green", "model": "--blue"}


@dataclass
class Place:
    """A node, or where a long edge passes a layer."""

    artifact: Artifact | None
    layer: int
    inputs: list[str] = field(default_factory=list)
    x: float = 0.0
    y: float = 0.0

    @property
    def width(self) -> int:
        """Pixels that it takes in its layer."""
        return WIDTH if self.artifact else BEND


def draw_lineage(chain: Chain) -> Plot | None:
    """The graph of the chain's artifacts, below its recipe; None without artifacts."""
    if not chain.lineage:
        return None
    places = _places(_nodes(chain))
    width = _arrange(places)
    height = max(place.y for place in places.values()) + HEIGHT + 2
    edges = "".join(
        _edge(places[above], place) for place in places.values() for above in place.inputs
    )
    boxes = "".join(_box(place) for place in places.values() if place.artifact)
    alt = _in_words(places)
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        # Letters stay letters: a small graph is not blown up, a large one scrolls.
        f'style="min-width: {0.8 * width:.0f}px; max-width: {1.2 * width:.0f}px">'
        f'<rect width="100%" height="100%" fill="{PAPER}"/>{edges}{boxes}</svg>'
    )
    return Plot(name="lineage", title="Lineage", alt=alt, svg=alone("lineage", alt, svg))


def _nodes(chain: Chain) -> list[Artifact]:
    """The artifacts, those that are only named as inputs, and the recipe above what has none."""
    known = {artifact.id for artifact in chain.lineage}
    named = {above for artifact in chain.lineage for above in artifact.inputs} - known
    lost = [Artifact(id=id_, kind="not listed", name=id_) for id_ in sorted(named)]
    found = [*chain.lineage, *lost]
    if any(artifact.kind == "recipe" for artifact in found):
        return found
    top = Artifact(id="the recipe", kind="recipe", name=chain.recipe.name)
    return [top] + [
        artifact if artifact.inputs else artifact.model_copy(update={"inputs": (top.id,)})
        for artifact in found
    ]


def _places(nodes: list[Artifact]) -> dict[str, Place]:
    """Every node in its layer, every edge from one layer to the next."""
    by_id = {node.id: node for node in nodes}
    layers: dict[str, int] = {}
    for node in nodes:
        _layer(node.id, by_id, layers, ())
    places = {node.id: Place(node, layers[node.id]) for node in nodes}
    for node in nodes:
        for above in dict.fromkeys(node.inputs):
            if layers[above] < layers[node.id]:
                _connect(places, above, node.id)
    return places


def _layer(
    id_: str, nodes: dict[str, Artifact], layers: dict[str, int], above: tuple[str, ...]
) -> int:
    """Length of the longest path from a source; what would close a circle is left out."""
    if id_ not in layers:
        inputs = [other for other in nodes[id_].inputs if other not in (*above, id_)]
        depths = [_layer(other, nodes, layers, (*above, id_)) for other in inputs]
        layers[id_] = 1 + max(depths, default=-1)
    return layers[id_]


def _connect(places: dict[str, Place], above: str, below: str) -> None:
    # Bends are shared by all edges out of one node: fewer lines, the same facts.
    last = above
    for layer in range(places[above].layer + 1, places[below].layer):
        bend = f"{above}\n{layer}"
        places.setdefault(bend, Place(None, layer, [last]))
        last = bend
    places[below].inputs.append(last)


def _arrange(places: dict[str, Place]) -> float:
    """Give every place its x (middle) and y (top); the drawing's width is returned."""
    rows: dict[int, list[str]] = defaultdict(list)
    for id_, place in places.items():
        rows[place.layer].append(id_)
    below: dict[str, list[str]] = defaultdict(list)
    for id_, place in places.items():
        for above in place.inputs:
            below[above].append(id_)
    width = max(_row_width(places, row) for row in rows.values())
    for row in rows.values():
        _spread(places, row, width)
    for sweep in range(SWEEPS):
        for layer in sorted(rows, reverse=bool(sweep % 2)):
            near = below if sweep % 2 else {id_: places[id_].inputs for id_ in rows[layer]}
            rows[layer].sort(key=lambda id_: _middle(places, near.get(id_, []), places[id_].x))
            _spread(places, rows[layer], width)
    return width


def _middle(places: dict[str, Place], near: list[str], otherwise: float) -> float:
    return sum(places[id_].x for id_ in near) / len(near) if near else otherwise


def _row_width(places: dict[str, Place], row: list[str]) -> float:
    return sum(places[id_].width + BETWEEN for id_ in row) + BETWEEN


def _spread(places: dict[str, Place], row: list[str], width: float) -> None:
    x = (width - _row_width(places, row)) / 2 + BETWEEN
    for id_ in row:
        place = places[id_]
        place.x, place.y = x + place.width / 2, 2 + place.layer * (HEIGHT + BELOW)
        x += place.width + BETWEEN


def _edge(above: Place, below: Place) -> str:
    start = above.y + HEIGHT
    bend = below.y - BELOW / 2
    line = f"M{above.x:.1f},{start:.1f} C{above.x:.1f},{bend:.1f} {below.x:.1f},{bend:.1f} "
    line += f"{below.x:.1f},{below.y:.1f}"
    if below.artifact is None:
        line += f" V{below.y + HEIGHT:.1f}"
        return f'<path d="{line}" fill="none" stroke="{SOFT}" stroke-width="1"/>'
    tip = f"M{below.x - 4:.1f},{below.y - 6:.1f} L{below.x:.1f},{below.y:.1f} l4,-6"
    return f'<path d="{line} {tip}" fill="none" stroke="{SOFT}" stroke-width="1"/>'


def _box(place: Place) -> str:
    node = place.artifact
    if node is None:
        return ""
    colour = LIGHT[COLOURS.get(node.kind, "--soft")]
    dashes = ' stroke-dasharray="4 3"' if node.kind == "not listed" else ""
    below = node.kind if node.version is None else f"{node.kind}, version {node.version}"
    below += "" if node.bytes is None else f", {text.size(node.bytes)}"
    words = (
        (shorten(node.name, 20), 12, INK, place.y + 20),
        (shorten(below, 27), 9.5, SOFT, place.y + 35),
    )
    lines = "".join(
        f'<text x="{place.x:.1f}" y="{y:.1f}" text-anchor="middle" font-size="{size}" '
        f'font-family="Verdana, system-ui, sans-serif" fill="{fill}">{escape(written)}</text>'
        for written, size, fill, y in words
    )
    return (
        f'<rect x="{place.x - WIDTH / 2:.1f}" y="{place.y:.1f}" width="{WIDTH}" height="{HEIGHT}" '
        f'rx="6" fill="{PAPER}" stroke="{colour}" stroke-width="1.6"{dashes}/>{lines}'
    )


def _in_words(places: dict[str, Place]) -> str:
    nodes = {id_: place.artifact for id_, place in places.items() if place.artifact}
    made = [
        f"{node.name} from {', '.join(nodes[above].name for above in node.inputs)}"
        for node in nodes.values()
        if node.inputs
    ]
    return f"What was made from what: {'; '.join(made)}."
