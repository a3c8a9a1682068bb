import pytest
import yaml

from prompts.yaml_text import read_yaml


def test_only_true_and_false_are_truth_values() -> None:
    text = "on: start\noff: no\nyes: [true, False, y, Off]\n"
    assert read_yaml(text) == {"on": "start", "off": "no", "yes": [True, False, "y", "Off"]}


def test_all_else_is_as_ever() -> None:
    assert read_yaml("a: 1\nb: 2.0e-3\nc: ~\nd: {e: 'x'}\n") == {
        "a": 1,
        "b": 0.002,
        "c": None,
        "d": {"e": "x"},
    }
    with pytest.raises(yaml.YAMLError):
        read_yaml("[1")
    with pytest.raises(yaml.YAMLError):
        read_yaml("!!python/object/apply:os.getcwd []")
