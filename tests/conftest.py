"""What all tests share: which of them this machine can run, and that a skip is never silent."""

import gc
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXCEPTED = {"gpu", "docker"}
"""What may be missing even where everything else is required."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what the machine lacks, with the reason."""
    missing = lacks()
    for item in items:
        for name, reason in missing.items():
            if item.get_closest_marker(name):
                item.add_marker(pytest.mark.skip(reason=reason))


def lacks() -> dict[str, str]:
    """Marker -> why its tests can't run here."""
    missing = {}
    if not (ROOT / ".venv-vllm" / "bin" / "python").exists():
        missing["vllm"] = "no .venv-vllm: run `make setup`"
    if shutil.which("nvidia-smi") is None:
        missing["gpu"] = "no NVIDIA GPU"
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "info"], capture_output=True).returncode:
        missing["docker"] = "no Docker engine"
    return missing


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item):  # type: ignore[no-untyped-def]
    """With RETORT_REQUIRE=all a skip is a failure."""
    report = (yield).get_result()
    excused = any(item.get_closest_marker(name) for name in EXCEPTED)
    if report.skipped and os.environ.get("RETORT_REQUIRE") == "all" and not excused:
        report.outcome = "failed"
        report.longrepr = f"skipped where RETORT_REQUIRE=all forbids it: {report.longrepr}"


def pytest_collection_finish() -> None:
    """What stands by now stands until the end: the tests themselves, and the libraries' modules.
    The collector needn't look through it each time; trainers collect before they measure memory,
    which took up to half of their tests' time."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """Libraries that count what they leak at the end would take it all for that."""
    gc.unfreeze()
