"""Which rows a step sees."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from trainer.order import Order, passes


@given(
    lengths=st.lists(st.integers(1, 50), min_size=1, max_size=200),
    rows_per_step=st.integers(1, 40),
    seed=st.integers(0, 2**31),
    epoch=st.integers(0, 3),
)
def test_every_epoch_holds_every_row_once(
    lengths: list[int], rows_per_step: int, seed: int, epoch: int
) -> None:
    order = Order(lengths, rows_per_step, seed)
    steps = range(epoch * order.steps_per_epoch, (epoch + 1) * order.steps_per_epoch)
    sizes = [len(order.rows(step)) for step in steps]
    seen = np.concatenate([order.rows(step) for step in steps])
    assert sorted(seen.tolist()) == list(range(len(lengths)))
    assert max(sizes) <= rows_per_step
    assert max(sizes) - min(sizes) <= 1


def test_a_step_is_a_function_of_seed_and_number_alone() -> None:
    lengths = [number % 13 for number in range(300)]
    forwards = Order(lengths, 16, seed=5)
    wanted = [forwards.rows(step).tolist() for step in range(60)]
    assert [Order(lengths, 16, seed=5).rows(step).tolist() for step in range(60)] == wanted
    backwards = Order(lengths, 16, seed=5)
    assert [backwards.rows(step).tolist() for step in reversed(range(60))] == wanted[::-1]
    assert Order(lengths, 16, seed=6).rows(0).tolist() != wanted[0]
    assert wanted[0] != wanted[forwards.steps_per_epoch]


def test_like_lengths_go_together() -> None:
    lengths = np.random.default_rng(0).integers(1, 200, 1024).tolist()
    order = Order(lengths, 32, seed=0)
    spans = [np.ptp(np.asarray(lengths)[order.rows(step)]) for step in range(32)]
    assert float(np.mean(spans)) < 20  # a random batch of 32 spans about 190


@given(
    count=st.integers(1, 70),
    batch_size=st.integers(1, 16),
    ranks=st.integers(1, 5),
)
def test_ranks_share_a_step_in_equally_many_passes(count: int, batch_size: int, ranks: int) -> None:
    rows = np.arange(count)
    shares = [passes(rows, batch_size, rank, ranks) for rank in range(ranks)]
    assert len({len(share) for share in shares}) == 1
    assert all(len(part) <= batch_size for share in shares for part in share)
    seen = np.concatenate([part for share in shares for part in share])
    assert sorted(seen.tolist()) == rows.tolist()
