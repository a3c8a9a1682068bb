"""Our methods beside llmcompressor's, and its GPTQ beside the definition, on the same rows."""

from pathlib import Path
from typing import Any

import pytest
import torch
from llmcompressor.entrypoints.oneshot import oneshot
from llmcompressor.modifiers.pruning import SparseGPTModifier, WandaPruningModifier
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from tests.trainer.compress.models import token_rows
from tests.trainer.compress.world import make_llama
from tests.trainer.conftest import save_model
from trainer.compress import ptq, sparsegpt, wanda
from trainer.compress.layout import find_layers, find_linears
from trainer.compress.moments import collect, damped_cholesky
from trainer.compress.rounding import round_weight, rtn, weight_scale
from trainer.compress.schemes import SCHEMES
from trainer.compress.smoothing import rounding_loss
from trainer.data import TokenRow
from trainer.loading import load_model
from trainer.spec import QuantizePtq, SparseGptPrune, WandaPrune

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:Attempting to save a model with offloaded modules"),
]
ROWS = token_rows(24)
EVERYWHERE: dict[str, Any] = {"targets": ["Linear"], "ignore": ["lm_head"]}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("peer"), make_llama())


def by_peer(source: Path, modifier: Any) -> PreTrainedModel:
    """llmcompressor's result, shown the rows one by one as `ptq` shows them."""
    inputs = [{"input_ids": ids, "attention_mask": torch.ones_like(ids)} for ids in map(_ids, ROWS)]
    calibration: Any = DataLoader(inputs, batch_size=None)  # type: ignore[arg-type]
    made: PreTrainedModel = oneshot(
        model=load_model(source),
        dataset=calibration,
        recipe=[modifier],
        num_calibration_samples=len(inputs),
        clear_sparse_session=True,
    )
    return made


def _ids(row: TokenRow) -> Tensor:
    return torch.from_numpy(row.ids.astype("int64"))[None]


def weights(model: PreTrainedModel) -> list[tuple[str, Tensor]]:
    """Of the decoder's linears, in the same order for each model."""
    return [
        (f"{index}.{name}", linear.weight.detach())
        for index, layer in enumerate(find_layers(model).layers)
        for name, linear in find_linears(layer).items()
    ]


def test_wanda_zeroes_what_llmcompressors_does(source: Path) -> None:
    peer = by_peer(source, WandaPruningModifier(sparsity=0.5, mask_structure="0:0", **EVERYWHERE))
    ours = wanda.apply(WandaPrune(kind="wanda"), load_model(source), ROWS).model
    for (name, mine), (_, theirs) in zip(weights(ours), weights(peer), strict=True):
        assert torch.equal(mine, theirs), name


def test_sparsegpt_loses_no_more_than_llmcompressors(source: Path) -> None:
    """In fp64 where that is in fp32: a few near ties fall otherwise, and the later layers then see
    other inputs. So the first layer's masks are compared, and what it loses."""
    peer = by_peer(source, SparseGPTModifier(sparsity=0.5, mask_structure="0:0", **EVERYWHERE))
    stage = SparseGptPrune(kind="sparsegpt")
    ours = sparsegpt.apply(stage, load_model(source), ROWS).model
    dense = load_model(source)
    moments = next(iter(collect(dense, ROWS)))
    count = len(moments)
    rows = zip(weights(dense)[:count], weights(ours), weights(peer), strict=False)
    for (name, whole), (_, mine), (_, theirs) in rows:
        assert ((mine == 0) == (theirs == 0)).float().mean() > 0.99, name
        gram = moments[name.partition(".")[2]].gram
        lost = [rounding_loss(whole.double(), one.double(), gram) for one in (mine, theirs)]
        if name.endswith(("q_proj", "k_proj", "v_proj")):  # what the others read is pruned by then
            assert lost[0] <= 1.01 * lost[1], name


def test_gptq_is_llmcompressors_and_loses_no_more_than_the_definition(
    source: Path, tmp_path: Path
) -> None:
    """The first layer's queries, keys and values: what they read no rounding has touched."""
    stage = QuantizePtq(kind="ptq", scheme="W4A16", algorithm="gptq", group_size=32)
    ptq.apply(stage, load_model(source), ROWS).model.save_pretrained(tmp_path)
    dense, made = load_model(source), load_model(tmp_path)
    moments = next(iter(collect(dense, ROWS)))
    scheme = SCHEMES["W4A16"]
    for (name, whole), (_, packed) in zip(weights(dense), weights(made), strict=True):
        if name not in ("0.self_attn.q_proj", "0.self_attn.k_proj", "0.self_attn.v_proj"):
            continue
        gram, weight = moments[name.partition(".")[2]].gram, whole.double()
        nearest = rounding_loss(weight, rtn(weight, scheme, 32), gram)
        defined = rounding_loss(weight, gptq(weight, gram), gram)
        found = rounding_loss(weight, packed.double(), gram)
        assert defined < nearest
        assert found < nearest
        assert found <= 1.15 * defined, name


def gptq(weight: Tensor, gram: Tensor) -> Tensor:
    """Columns rounded from left to right, those behind taking up the error (arXiv:2210.17323,
    algorithm 1, without blocks); scales of groups of 32 from the weights as they were."""
    scale = weight_scale(weight, SCHEMES["W4A16"], 32)
    lower, _ = damped_cholesky(gram, 0.01)
    factor = torch.linalg.cholesky(torch.cholesky_inverse(lower), upper=True)
    left, made = weight.clone(), weight.clone()
    for column in range(weight.shape[1]):
        rounded = round_weight(left, scale, SCHEMES["W4A16"], 32)[:, column]
        error = (left[:, column] - rounded) / factor[column, column]
        left[:, column:] -= error[:, None] * factor[column, column:]
        made[:, column] = rounded
    return made
