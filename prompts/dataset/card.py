"""The dataset card: its YAML head tells `datasets.load_dataset` which file is which split."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from prompts.dataset.manifest import Manifest
from prompts.split import SPLITS

SHOWN_ROWS = 3
_SHOWN_FIELDS = ("id", "split", "prompt", "completion", "answer", "reasoning")
_LONGEST_TEXT = 500
_MOST_TURNS = 6
_LONGEST_RECIPE = 8_000
_SPECIAL = re.compile(r"([\\`*<>\[\]|&#~])")


def card(manifest: Manifest, recipe: str = "", rows: Sequence[Mapping[str, Any]] = ()) -> str:
    """README.md of a dataset. Rejected rows are a configuration of their own, never the default.

    `recipe`: what made it, YAML. `rows`: accepted ones to show. Whatever a model or a user wrote
    stands in a block that it can't end, or with all that Markdown would read taken from it.
    """
    configs = [_accepted(manifest)]
    if manifest.reasons:
        files = [{"split": "rejected", "path": "rejected/*.parquet"}]
        configs.append({"config_name": "rejected", "data_files": files})
    head = yaml.safe_dump({"configs": configs}, sort_keys=False)
    body = "\n".join([*_figures(manifest), *_rows(rows), *_recipe(recipe)])
    return f"---\n{head}---\n\n{body}"


def _accepted(manifest: Manifest) -> dict[str, object]:
    # `datasets` refuses splits without rows ("corresponds to no data"), so those are left out; an
    # empty dataset still names train, lest the rejected rows be opened in its place.
    filled = [split for split in SPLITS if manifest.splits[split]] or ["train"]
    files = [{"split": split, "path": f"data/{split}-*.parquet"} for split in filled]
    return {"config_name": "default", "default": True, "data_files": files}


def _figures(manifest: Manifest) -> list[str]:
    counts = manifest.counts
    lines = [
        f"# {_plain(manifest.name)}",
        "",
        f"{counts.accepted:,} of {counts.seeds:,} rows were accepted, {counts.rejected:,} rejected,"
        f" {counts.not_needed:,} not needed.",
        f"Teacher: {', '.join(map(_plain, manifest.teachers)) or 'none asked'}."
        f" Kind: {', '.join(manifest.kinds) or 'none'}.",
        "",
    ]
    if manifest.empty:
        lines += ["**Empty: no row was accepted.** See the `rejected` configuration for why.", ""]
    return [
        *lines,
        *_table("split", "rows", manifest.splits),
        *_table("not accepted because", "rows", manifest.reasons),
        *_table("accepted, and flagged", "rows", manifest.flags),
        *_table("total", "", manifest.totals),
        "`load_dataset(PATH)` opens the accepted rows, `load_dataset(PATH, 'rejected')` the",
        "others, each with its reason and the raw completions. `recipe.yaml` is what made them.",
        "",
    ]


def _table(title: str, unit: str, figures: Mapping[str, float]) -> list[str]:
    if not figures:
        return []
    rows = [f"| {_plain(name)} | {_figure(figure)} |" for name, figure in figures.items()]
    return [f"| {title} | {unit} |", "|---|---:|", *rows, ""]


def _figure(figure: float) -> str:
    return f"{figure:,.0f}" if float(figure).is_integer() else f"{figure:,.1f}"


def _rows(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    if not rows:
        return []
    shown = [{name: _short(row.get(name)) for name in _SHOWN_FIELDS} for row in rows[:SHOWN_ROWS]]
    texts = [json.dumps(row, ensure_ascii=False, indent=2) for row in shown]
    return ["## The first rows", "", *(line for text in texts for line in _block("json", text))]


def _recipe(recipe: str) -> list[str]:
    if not recipe:
        return []
    whole = len(recipe) <= _LONGEST_RECIPE
    kept = recipe if whole else recipe[:_LONGEST_RECIPE].rpartition("\n")[0]
    cut = [] if whole else ["This is its beginning; `recipe.yaml` has it whole.", ""]
    return ["## Recipe", "", *_block("yaml", kept), *cut]


def _short(value: Any) -> Any:
    """Texts and lists cut, what is empty left out."""
    if isinstance(value, str) and len(value) > _LONGEST_TEXT:
        # Of a prompt with demonstrations the end is the question.
        half = _LONGEST_TEXT // 2
        cut = f"… {len(value) - 2 * half:,} more characters …"
        return f"{value[:half]}{cut}{value[-half:]}"
    if isinstance(value, Mapping):
        return {name: _short(each) for name, each in value.items() if each is not None}
    if isinstance(value, list):
        return [_short(each) for each in value[-_MOST_TURNS:]]
    return value


def _block(language: str, text: str) -> list[str]:
    """Text in a fence longer than any run of backticks in it."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}{language}", text.rstrip("\n"), fence, ""]


def _plain(text: str) -> str:
    """One line in which nothing is read as Markdown's or HTML's."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))
