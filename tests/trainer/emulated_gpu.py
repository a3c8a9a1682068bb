"""A GPU that isn't there: tensors say that they lie on it, and are reckoned on the CPU.

As on a real one, what lies on both sides can't meet in one operation, numbers of no dimension
aside. It shows where things are, not how fast they are or how a GPU rounds.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

GPU = torch.device("cuda", 0)
PEAK_BYTES, RESTING_BYTES = 7, 3
"""What it says that it has held at most, and holds."""


class Far(Tensor):
    """A tensor on the emulated GPU; `held` is where its numbers are."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "Far":
        made: Far = Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=held.device,
            requires_grad=held.requires_grad,
        )
        made.held = held
        return made

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func == Tensor.device.__get__:
            return GPU
        if func is Tensor.tolist:  # torch refuses it to every subclass
            return args[0].held.tolist()
        # To torch it lies on the CPU already, and would stay as it is.
        if func is Tensor.cpu or (func is Tensor.to and _leaves(args[1:], kwargs or {})):
            return func(args[0].held, *args[1:], **(kwargs or {}))
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class Emulated(TorchDispatchMode):
    """Within, tensors can be made on the GPU and sent to it."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0
        """Run there, moves among them."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = _run(func, args, kwargs or {})
        self.operations += any(isinstance(one, Far) for one in tree_flatten(found)[0])
        return found


class Making(TorchFunctionMode):
    """Numbers of Python's own become a tensor below where `Emulated` looks."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = dict(kwargs or {})
        if func is torch.tensor and "device" in named:
            device = named.pop("device")
            return torch.tensor(*args, **named).to(device)
        return func(*args, **named)


@contextmanager
def emulated_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulated]:
    """As if this machine had one."""
    overwriting = torch.__future__.get_overwrite_module_params_on_conversion()
    with monkeypatch.context() as patched:
        patched.setattr(torch.cuda, "is_available", lambda: True)
        patched.setattr(torch.cuda, "_lazy_init", lambda: None)
        patched.setattr(torch.cuda, "empty_cache", lambda: None)
        patched.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
        patched.setattr(torch.cuda, "memory_allocated", lambda device: RESTING_BYTES)
        patched.setattr(torch.cuda, "max_memory_allocated", lambda device: PEAK_BYTES)
        # What is set in place would stay what it was to Python: a tensor of the CPU.
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        try:
            with Emulated() as mode, Making():
                yield mode
        finally:
            torch.__future__.set_overwrite_module_params_on_conversion(overwriting)


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    if func is torch.ops.aten._has_compatible_shallow_copy_type.default:
        return isinstance(args[0], Far) == isinstance(args[1], Far)
    given, layout = tree_flatten((args, kwargs))
    named = [one for one in given if isinstance(one, torch.device)]
    far = any(isinstance(one, Far) for one in given)
    if far and not named and func is not torch.ops.aten.copy_.default:
        _check_together(func, given)
    near, near_named = tree_unflatten([_near(one) for one in given], layout)
    found = func(*near, **near_named)
    if not (named[0].type == "cuda" if named else far):
        return found
    if isinstance(args[0] if args else None, Far) and found is args[0].held:
        return args[0]  # in place, or there already
    # torch counts the versions of what is no view within inference mode only.
    with torch.inference_mode(False):
        return tree_map(lambda one: Far(one) if isinstance(one, Tensor) else one, found)


def _check_together(func: Any, given: list[Any]) -> None:
    near = [one for one in given if isinstance(one, Tensor) and not isinstance(one, Far)]
    if any(one.dim() > 0 for one in near):
        raise RuntimeError(f"{func}: tensors on two devices, cuda:0 and cpu")


def _leaves(args: Any, kwargs: dict[str, Any]) -> bool:
    """Whether the arguments of `Tensor.to` name the CPU."""
    named = [one for one in (*args, *kwargs.values()) if isinstance(one, str | torch.device)]
    return any(torch.device(one).type == "cpu" for one in named)


def _near(one: Any) -> Any:
    if isinstance(one, torch.device):
        return torch.device("cpu") if one.type == "cuda" else one
    return one.held if isinstance(one, Far) else one
