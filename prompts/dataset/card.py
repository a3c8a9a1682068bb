"""The dataset card: its YAML head tells `datasets.load_dataset` which file is which split."""

import yaml

from prompts.dataset.manifest import Manifest
from prompts.split import SPLITS


def card(manifest: Manifest) -> str:
    """README.md of a dataset. Rejected rows are a configuration of their own, never the default."""
    configs = [_accepted(manifest)]
    if manifest.reasons:
        files = [{"split": "rejected", "path": "rejected/*.parquet"}]
        configs.append({"config_name": "rejected", "data_files": files})
    head = yaml.safe_dump({"configs": configs}, sort_keys=False)
    return f"---\n{head}---\n\n{_body(manifest)}"


def _accepted(manifest: Manifest) -> dict[str, object]:
    # `datasets` refuses splits without rows ("corresponds to no data"), so those are left out; an
    # empty dataset still names train, lest the rejected rows be opened in its place.
    filled = [split for split in SPLITS if manifest.splits[split]] or ["train"]
    files = [{"split": split, "path": f"data/{split}-*.parquet"} for split in filled]
    return {"config_name": "default", "default": True, "data_files": files}


def _body(manifest: Manifest) -> str:
    counts = manifest.counts
    lines = [
        f"# {manifest.name}",
        "",
        f"{counts.accepted:,} of {counts.seeds:,} rows were accepted, {counts.rejected:,} rejected,"
        f" {counts.not_needed:,} not needed.",
        f"Teacher: {', '.join(manifest.teachers) or 'none asked'}."
        f" Kind: {', '.join(manifest.kinds) or 'none'}.",
        "",
    ]
    if manifest.empty:
        lines += ["**Empty: no row was accepted.** See the `rejected` configuration for why.", ""]
    lines += _table("split", manifest.splits) + _table("not accepted because", manifest.reasons)
    lines += [
        "`load_dataset(PATH)` opens the accepted rows, `load_dataset(PATH, 'rejected')` the",
        "others, each with its reason and the raw completions. `recipe.yaml` is what made them.",
        "",
    ]
    return "\n".join(lines)


def _table(title: str, counts: dict[str, int]) -> list[str]:
    if not counts:
        return []
    rows = [f"| {name} | {count:,} |" for name, count in counts.items()]
    return [f"| {title} | rows |", "|---|---:|", *rows, ""]
