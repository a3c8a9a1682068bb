"""What a wrong spec is told."""

import pytest
from pydantic import ValidationError

from trainer.spec import CompressSpec


def test_a_wrong_field_is_told_alone_and_an_empty_list_too() -> None:
    """Not as a list that is too short as well."""
    sweep = {"kind": "magnitude", "sweep": {"ratios": ["x", 0.5]}}
    for stages, path, said in (
        ([{"kind": "magnitude", "sparsity": 2}], "stages.0.magnitude.sparsity", "less than 1"),
        ([{"kind": "depth"}, {"kind": "nope"}], "stages.1", "does not match"),
        ([{"kind": "svd", "targets": [3]}], "stages.0.svd.targets.0", "valid string"),
        ([sweep], "stages.0.magnitude.sweep.ratios.0", "valid number"),
        ([], "stages", "There should be at least 1, not 0"),
    ):
        with pytest.raises(ValidationError) as refused:
            CompressSpec(stages=stages)
        (told,) = refused.value.errors()
        assert ".".join(map(str, told["loc"])) == path
        assert said in told["msg"]
    schema = CompressSpec.model_json_schema()
    assert schema["properties"]["stages"]["minItems"] == 1
    assert schema["$defs"]["Sweep"]["properties"]["ratios"]["minItems"] == 2
    assert schema["$defs"]["Sweep"]["properties"]["ratios"]["maxItems"] == 32
