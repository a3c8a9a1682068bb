"""Every request's own random numbers."""

from hashlib import sha256

from prompts.spec import Sampling


def row_number(row: str) -> int:
    """A number in 0..2^31-1 that belongs to a row's id, for the row's own sampling seed."""
    return int.from_bytes(sha256(row.encode()).digest()[:4], "big") >> 1


def sampling_seed(base: int, row: str, step: int = 0, sample: int = 0) -> int:
    """The seed of one request, 0..2^31-1: every sample of every step of every row has its own."""
    return (base + row_number(row) + step * 1_000_003 + sample * 7919) % 2**31


def seeded(sampling: Sampling, row: str, step: int = 0, sample: int = 0) -> Sampling:
    """The sampling of one request; without a seed it stays without."""
    if sampling.seed is None:
        return sampling
    return sampling.model_copy(update={"seed": sampling_seed(sampling.seed, row, step, sample)})
