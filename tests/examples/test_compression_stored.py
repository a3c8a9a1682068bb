"""What is saved beside what was trained, on a tiny student."""

from pathlib import Path

import pytest

from examples.compression.stored import main
from tests.trainer.compress.world import write_dataset, write_model


@pytest.mark.slow
def test_what_is_saved_is_what_was_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, dataset = write_model(tmp_path / "m"), write_dataset(tmp_path / "d")
    main(["--model", str(model), "--dataset", str(dataset), "--steps", "1"])
    rows = [
        line.split(" | ")
        for line in capsys.readouterr().out.splitlines()
        if ", " in line and line[0] == "|"
    ]
    off = {(row[0], row[1]): row[2] for row in rows[1:] if len(row) == 5}
    assert len(off) == 7
    for (_, run), mean in off.items():
        assert (mean == "0.0000 (0.000)") is (run in ("fp32, fp32", "bf16, bf16"))
