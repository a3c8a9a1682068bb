"""Intervals, and a measurement without torch."""

import subprocess
import sys

import numpy as np
import pytest

from trainer.measurement import bootstrap, wilson


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


def test_the_interval_covers_what_it_should() -> None:
    """Of 200 samples of a known mean, about 95 in 100 intervals hold it."""
    random = np.random.default_rng(0)
    held = 0
    for seed in range(200):
        values = random.exponential(size=60)
        found = bootstrap(list(values), [1.0] * 60, 300, seed)
        held += found.low <= 1.0 <= found.high
    assert 0.87 <= held / 200 <= 0.99
    twice = bootstrap([1.0, 2.0, 3.0], [1.0, 1.0, 2.0], 100)
    assert twice == bootstrap([1.0, 2.0, 3.0], [1.0, 1.0, 2.0], 100)
    assert twice.value == 1.5
