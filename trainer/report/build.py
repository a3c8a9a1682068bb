"""From a chain's facts to a report directory: `python -m trainer report --chain FILE --out DIR`."""

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from trainer.errors import BadInput
from trainer.events import Emit
from trainer.report.chain import Chain
from trainer.report.derive import Derived, derive
from trainer.report.drawing import Plot
from trainer.report.lineage import draw_lineage
from trainer.report.model_page import FOLDER
from trainer.report.page import html, markdown, page_files
from trainer.report.plots import all_plots

FORMAT = 1
"""Of report.json and manifest.json."""
MANIFEST = "manifest.json"


def run(chain_file: Path, out: Path, emit: Emit) -> dict[str, Any]:
    """Write report.html, report.md, report.json, plots/, models/ and, last, manifest.json.

    A directory without a manifest is an unfinished report. Raises BadInput for a file that is no
    chain.
    """
    emit("phase", {"name": "report", "detail": "reading the chain"})
    chain = read_chain(chain_file)
    derived = derive(chain)
    emit("phase", {"name": "report", "detail": "drawing"})
    lineage = draw_lineage(chain)
    plots = (*all_plots(chain, derived), *((lineage,) if lineage else ()))
    files = _files(chain, derived, plots)
    _write(out, files, chain, derived)
    return {
        "report": str(out),
        "headline": derived.headline,
        "verdicts": [verdict.model_dump(mode="json") for verdict in derived.verdicts],
        "table": derived.table,
        "files": sorted([*files, MANIFEST]),
    }


def read_chain(chain_file: Path) -> Chain:
    """The facts of a chain from JSON."""
    try:
        return Chain.model_validate_json(chain_file.read_bytes())
    except OSError as error:
        raise BadInput(
            f"{chain_file} can't be read", f"{error.strerror}: give the chain's file"
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(step) for step in first["loc"]) or "the whole file"
        raise BadInput(
            f"{chain_file} is not a chain",
            f"{place}: {first['msg']} ({error.error_count()} problems); "
            "trainer/report/chain.py says what it holds",
        ) from error


def _files(chain: Chain, derived: Derived, plots: tuple[Plot, ...]) -> dict[str, str]:
    facts = {
        "format": FORMAT,
        "chain": json.loads(chain.model_dump_json()),
        "derived": json.loads(derived.model_dump_json()),
        "plots": [{"file": f"plots/{plot.name}.svg", "alt": plot.alt} for plot in plots],
    }
    return {
        **{f"plots/{plot.name}.svg": plot.svg for plot in plots},
        **page_files(chain, derived),
        "report.md": markdown(chain, derived, plots),
        "report.html": html(chain, derived, plots),
        "report.json": json.dumps(facts, indent=1, ensure_ascii=False, allow_nan=False) + "\n",
    }


def _write(out: Path, files: dict[str, str], chain: Chain, derived: Derived) -> None:
    for folder in ("plots", FOLDER):
        (out / folder).mkdir(parents=True, exist_ok=True)
    (out / MANIFEST).unlink(missing_ok=True)
    listed = {}
    for name, content in files.items():
        data = content.encode()
        (out / name).write_bytes(data)
        listed[name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    manifest = {
        "format": FORMAT,
        "kind": "report",
        "chain": chain.id,
        "recipe": chain.recipe.name,
        "headline": derived.headline,
        "files": listed,
    }
    temporary = out / f"{MANIFEST}.part"
    temporary.write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")
    temporary.replace(out / MANIFEST)
