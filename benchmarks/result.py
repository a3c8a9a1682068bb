"""What a benchmark says: one line of JSON for machines, one table for people."""

import json
import os
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib import metadata


@dataclass(frozen=True)
class Result:
    """Ours against a peer or a limit, measured interleaved in one run.

    `ratio` is the median over rounds of ours to peer or limit, as `target` names it.
    """

    name: str
    ours: float
    unit: str
    ratio: float
    target: str
    met: bool
    peer: float | None = None
    limit: float | None = None
    growth: list[dict[str, float]] = field(default_factory=list)
    machine: str = field(default_factory=lambda: machine())
    versions: dict[str, str] = field(default_factory=lambda: versions())


Benchmark = Callable[[bool], Result]
"""Takes whether to be quick."""


def machine() -> str:
    """The processor and how many cores this process may use."""
    model = platform.processor() or platform.machine()
    with open("/proc/cpuinfo") as file:
        names = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
    return f"{names[0] if names else model}, {len(os.sched_getaffinity(0))} cores"


def versions() -> dict[str, str]:
    """Of what usually explains a difference."""
    return {name: metadata.version(name) for name in ("torch", "transformers")}


def as_json(result: Result) -> str:
    """One line."""
    return json.dumps(asdict(result))


def as_text(result: Result) -> str:
    """A table of one row, then the growth."""
    against = f"peer {result.peer:.4g}" if result.peer is not None else f"limit {result.limit:.4g}"
    lines = [
        f"{result.name}: {result.ours:.4g} {result.unit}, {against}, ratio {result.ratio:.3f}, "
        f"target {result.target}: {'met' if result.met else 'MISSED'}"
    ]
    lines += ["  " + ", ".join(f"{k}={v:.4g}" for k, v in row.items()) for row in result.growth]
    return "\n".join([*lines, f"  {result.machine}"])
