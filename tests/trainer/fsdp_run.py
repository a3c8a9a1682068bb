"""rank_run under FSDP2 on a CPU.

accelerate 1.15 shards on GPUs and other accelerators alone: on gloo ranks it quietly falls back to
DDP. Here it is told that they are such (a fake, of that one answer); all else is accelerate's,
torch's and ours.
"""

import runpy
from typing import Any

from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType

begin = AcceleratorState.__init__


def begin_sharded(
    self: AcceleratorState, *given: Any, fsdp_plugin: Any = None, **more: Any
) -> None:
    """As it begins on a GPU."""
    begin(self, *given, fsdp_plugin=fsdp_plugin, **more)
    if fsdp_plugin is not None and self.distributed_type is DistributedType.MULTI_CPU:
        self.distributed_type = DistributedType.FSDP
        self.fsdp_plugin = fsdp_plugin
        PartialState._shared_state["distributed_type"] = DistributedType.FSDP


if __name__ == "__main__":
    AcceleratorState.__init__ = begin_sharded  # type: ignore[method-assign]
    runpy.run_module("tests.trainer.rank_run", run_name="__main__")
