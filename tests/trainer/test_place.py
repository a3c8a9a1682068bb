"""Where a training writes."""

import threading
from pathlib import Path

from tests.trainer.runs import Heard
from trainer.place import claimed


def test_a_training_that_is_being_ended_is_waited_for(tmp_path: Path) -> None:
    ending, heard = claimed(tmp_path, Heard()), Heard()
    ending.__enter__()
    end = threading.Timer(0.2, ending.__exit__, (None, None, None))
    end.start()
    with claimed(tmp_path, heard):
        assert not end.is_alive() or end.finished.is_set()
    assert [phase["name"] for phase in heard.of("phase")] == ["wait"]
