"""`make demo` interrupted: nothing is left running, and the next call goes on with the same job."""

import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

# A process that runs in the background of a script is born without ears for Ctrl-C.
DEMO = """
import signal, sys
from examples.demo.run import main
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(main())
"""


def interrupted(data: Path, at: str) -> tuple[list[str], int]:
    """What the demo said up to the line that `at` is in, where Ctrl-C came; and its exit code."""
    words = [sys.executable, "-u", "-c", DEMO, "--data-dir", str(data)]
    said: list[str] = []
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            said.append(line)
            if at in line:
                assert left(data)
                # As a terminal does: all that runs in front of it hears it.
                for one in (psutil.Process(demo.pid), *psutil.Process(demo.pid).children()):
                    one.send_signal(signal.SIGINT)
                break
        said += demo.stdout.readlines()
    return said, demo.returncode


def left(data: Path) -> list[str]:
    """Processes that still work on the data directory."""
    found = []
    for one in psutil.process_iter():
        with suppress(psutil.Error):  # It has ended, or is somebody else's.
            words = one.cmdline()
            if str(data) in (*words, one.environ().get("RETORT_DATA_DIR")):
                found.append(" ".join(words))
    return found


@pytest.mark.servers
@pytest.mark.vllm
@pytest.mark.timeout(300)
def test_interrupted_wherever_it_is_it_leaves_nothing_and_goes_on(tmp_path: Path) -> None:
    data = tmp_path / "demo"
    _, code = interrupted(data, "redis ")
    assert code != 0
    assert left(data) == []
    said, code = interrupted(data, "serve     running")
    assert code == 130
    assert left(data) == []
    (job,) = {line.split()[2] for line in said if line.startswith("submitted recipe")}
    said, code = interrupted(data, "serve     running")
    assert code == 130
    assert any(f"going on with {job}" in line for line in said)
    assert left(data) == []
