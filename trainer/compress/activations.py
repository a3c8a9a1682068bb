"""What flows into a model's linears on calibration rows. B batch, T tokens, n inputs."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from trainer.data import TokenRow, collate

BATCH_ROWS = 16


class _Reached(Exception):  # noqa: N818  # not an error: the forward pass need go no further
    """The last module of interest has run."""


def observe(
    model: PreTrainedModel,
    linears: Mapping[str, nn.Linear],
    rows: Sequence[TokenRow],
    see: Callable[[str, Tensor, Tensor], None],
    until: nn.Module,
) -> None:
    """Call `see(name, x, mask)` for each linear and batch; x [B, T, n], mask [B, T] of real tokens.

    `until` ends a forward pass: layers behind it are not run. Passing each layer in turn costs
    L^2 / 2 layer runs rather than L, but needs no knowledge of how a decoder calls its layers.
    """
    current: list[Tensor] = []
    handles = [
        linear.register_forward_pre_hook(_seer(name, current, see))
        for name, linear in linears.items()
    ]
    handles.append(stopping(until))
    try:
        for ids, mask in batches(rows, model.device):
            current[:] = [mask]
            run_until_reached(model, ids, mask)
    finally:
        remove(handles)


def batches(rows: Sequence[TokenRow], device: torch.device) -> list[tuple[Tensor, Tensor]]:
    """Right-padded token ids [B, T] and the mask of real tokens [B, T], longest rows first."""
    made = []
    for part in parts(rows):
        ids = collate(part)["input_ids"]
        lengths = torch.tensor([len(row.ids) for row in part])
        mask = torch.arange(ids.shape[1])[None] < lengths[:, None]
        made.append((ids.to(device), mask.to(device)))
    return made


def parts(rows: Sequence[TokenRow]) -> list[list[TokenRow]]:
    """The rows in batches of like length, longest first."""
    ordered = sorted(rows, key=lambda row: -len(row.ids))
    return [ordered[start : start + BATCH_ROWS] for start in range(0, len(ordered), BATCH_ROWS)]


def run_until_reached(model: PreTrainedModel, ids: Tensor, mask: Tensor) -> None:
    """One forward pass without gradients, up to the module that ends it."""
    with torch.inference_mode():
        try:
            model(input_ids=ids, attention_mask=mask.long(), use_cache=False)
        except _Reached:
            return


def stopping(module: nn.Module) -> RemovableHandle:
    """A hook by which a forward pass ends once `module` has run."""
    return module.register_forward_hook(_stop)


def remove(handles: Sequence[RemovableHandle]) -> None:
    """Take hooks off again."""
    for handle in handles:
        handle.remove()


def _seer(
    name: str, current: list[Tensor], see: Callable[[str, Tensor, Tensor], None]
) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        see(name, inputs[0], current[0])

    return hook


def _stop(module: nn.Module, inputs: object, output: object) -> None:
    raise _Reached
