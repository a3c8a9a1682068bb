"""Two linears in series in the place of one. Shapes: m outputs, n inputs, r rank."""

from collections.abc import Mapping

from torch import Tensor, nn


class LowRankLinear(nn.Module):
    """y = left(right(x)): `right` is [r, n] without a bias, `left` is [m, r] with the dense one's.

    Both are plain `nn.Linear`, so that quantizers and vLLM treat them as they treat any other.
    """

    def __init__(self, in_features: int, out_features: int, rank: int, bias: bool) -> None:
        super().__init__()
        self.right = nn.Linear(in_features, rank, bias=False)
        self.left = nn.Linear(rank, out_features, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """[..., n] -> [..., m]."""
        y: Tensor = self.left(self.right(x))
        return y


def factorize_linears(model: nn.Module, ranks: Mapping[str, int]) -> None:
    """Put a `LowRankLinear` of rank `ranks[name]` in the place of each linear named.

    The factors are freshly initialised. Raises ValueError for a name that is no linear of `model`.
    """
    linears = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    for name, rank in ranks.items():
        if name not in linears:
            raise ValueError(f"ranks names {name!r}, which is no linear layer of this model")
        dense = linears[name]
        parent, _, leaf = name.rpartition(".")
        factors = LowRankLinear(
            dense.in_features, dense.out_features, rank, bias=dense.bias is not None
        )
        weight = dense.weight
        setattr(model.get_submodule(parent), leaf, factors.to(weight.device, weight.dtype))
