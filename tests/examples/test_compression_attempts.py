"""What was tried where a method is above its floor: printed from a table's own model."""

import shutil
from pathlib import Path

import pytest

from examples.compression.attempts import MASKS, ROUNDED, main
from examples.compression.text import read_text, write_dataset, write_model


@pytest.mark.slow
def test_each_attempt_has_its_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_dataset(read_text(None), tmp_path / "dataset", 48)
    shutil.copytree(write_model(tmp_path / "base", 64, 1), tmp_path / "train/model")
    main(["--table", str(tmp_path), "--rows", "4"])
    lines = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if " | " in line]
    found = {line[0].removeprefix("| "): line[1:] for line in lines}
    assert {name for name, *_ in (*MASKS, *ROUNDED)} <= found.keys()
    by_rows, by_all = (found[f"magnitude, {where}"] for where in ("within rows", "over the matrix"))
    assert by_rows != by_all
    nearest, awq = (float(found[name][0].replace(",", "")) for name in ("to nearest", "AWQ"))
    assert awq < nearest

    main([f"--model={tmp_path / 'train/model'}", f"--dataset={tmp_path / 'dataset'}", "--rows=4"])
    assert [
        line.split(" | ") for line in capsys.readouterr().out.splitlines() if " | " in line
    ] == lines
    with pytest.raises(SystemExit):
        main([f"--model={tmp_path / 'train/model'}"])
    assert "--model and --dataset go together" in capsys.readouterr().err
