"""The dataset card: its YAML head tells `datasets.load_dataset` which file is which split."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import yaml

from prompts.checks.personal_data import mask_personal_data
from prompts.checks.spec import PersonalDataCheck
from prompts.dataset.manifest import Manifest
from prompts.split import SPLITS

SHOWN_ROWS = 3
_SHOWN_FIELDS = ("id", "split", "prompt", "completion", "answer", "reasoning")
_LONGEST_TEXT = 500
_MARGIN = 1_000
"""Characters that are looked at beyond a cut: what is masked may lie across it."""
_MOST_TURNS = 6
_LONGEST_RECIPE = 8_000
_SPECIAL = re.compile(r"([\\`*<>\[\]|&#~])")


Mask = Callable[[str], str]


def card(
    manifest: Manifest,
    recipe: str = "",
    rows: Sequence[Mapping[str, Any]] = (),
    checks: Sequence[Mapping[str, Any]] = (),
) -> str:
    """README.md of a dataset. Rejected rows are a configuration of their own, never the default.

    `recipe`: what made it, YAML. `rows`: accepted ones to show. `checks`: the recipe's; where one
    looks for personal data, the rows are shown with it masked. Whatever a model or a user wrote
    stands in a block that it can't end, or with all that Markdown would read taken from it.
    """
    configs = [_accepted(manifest)]
    if manifest.reasons:
        files = [{"split": "rejected", "path": "rejected/*.parquet"}]
        configs.append({"config_name": "rejected", "data_files": files})
    head = yaml.safe_dump({"configs": configs}, sort_keys=False)
    body = "\n".join([*_figures(manifest), *_rows(rows, _masks(checks)), *_recipe(recipe)])
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


def _rows(rows: Sequence[Mapping[str, Any]], masks: Sequence[Mask]) -> list[str]:
    if not rows:
        return []
    shown = [
        {name: _short(row.get(name), masks) for name in _SHOWN_FIELDS} for row in rows[:SHOWN_ROWS]
    ]
    texts = [json.dumps(row, ensure_ascii=False, indent=2) for row in shown]
    note = ["Personal data of the sorts that the build looked for is masked here.", ""]
    blocks = (line for text in texts for line in _block("json", text))
    return ["## The first rows", "", *(note if masks else []), *blocks]


def _masks(checks: Sequence[Mapping[str, Any]]) -> list[Mask]:
    looked = [each for each in checks if each.get("kind") == "personal_data"]
    found = [PersonalDataCheck.model_validate(each) for each in looked]
    return [
        partial(mask_personal_data, entities=check.entities, min_score=check.min_score)
        for check in found
        if check.action != "off"
    ]


def _recipe(recipe: str) -> list[str]:
    if not recipe:
        return []
    whole = len(recipe) <= _LONGEST_RECIPE
    kept = recipe if whole else recipe[:_LONGEST_RECIPE].rpartition("\n")[0]
    cut = [] if whole else ["This is its beginning; `recipe.yaml` has it whole.", ""]
    return ["## Recipe", "", *_block("yaml", kept), *cut]


def _short(value: Any, masks: Sequence[Mask]) -> Any:
    """Texts masked, texts and lists cut, what is empty left out."""
    if isinstance(value, str):
        return _shown(value, masks)
    if isinstance(value, Mapping):
        return {name: _short(each, masks) for name, each in value.items() if each is not None}
    if isinstance(value, list):
        return [_short(each, masks) for each in value[-_MOST_TURNS:]]
    return value


def _shown(text: str, masks: Sequence[Mask]) -> str:
    # Of a prompt with demonstrations the end is the question.
    half = _LONGEST_TEXT // 2
    left = max(0, len(text) - 2 * (half + _MARGIN))
    ends = [text] if not left else [text[: half + _MARGIN], text[-half - _MARGIN :]]
    for mask in masks:
        ends = [mask(end) for end in ends]
    left += sum(map(len, ends)) - 2 * half
    if left <= 0:
        return "".join(ends)
    return f"{ends[0][:half]}… {left:,} more characters …{ends[-1][-half:]}"


def _block(language: str, text: str) -> list[str]:
    """Text in a fence longer than any run of backticks in it."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}{language}", text.rstrip("\n"), fence, ""]


def _plain(text: str) -> str:
    """One line in which nothing is read as Markdown's or HTML's."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))
