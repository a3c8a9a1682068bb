"""Intervals, and a measurement without torch."""

import subprocess
import sys

import pytest

from trainer.measurement import wilson


def test_wilsons_interval_for_a_known_case() -> None:
    half = wilson(5, 10)
    assert (half.low, half.high) == (
        pytest.approx(0.2366, abs=1e-4),
        pytest.approx(0.7634, abs=1e-4),
    )


def test_the_ends_stay_in_bounds() -> None:
    none, every = wilson(0, 20), wilson(20, 20)
    assert none.low == 0.0
    assert none.high == pytest.approx(0.1611, abs=1e-4)
    assert every.high == 1.0
    assert every.low == pytest.approx(1 - 0.1611, abs=1e-4)


def test_a_measurement_is_read_without_torch() -> None:
    code = "import trainer.measurement, trainer.spec, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
