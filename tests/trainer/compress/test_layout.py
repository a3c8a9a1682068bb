import pytest
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from tests.trainer.compress.models import tiny_llama
from trainer.compress.layout import find_layers, find_linears, pick_linears
from trainer.errors import BadInput


def test_layers_and_linears_of_a_llama() -> None:
    layout = find_layers(tiny_llama())
    assert (layout.name, len(layout.layers)) == ("model.layers", 3)
    assert len(find_linears(layout.layers[0])) == 7
    assert list(pick_linears(layout.layers[0], ("up_proj",))) == ["mlp.up_proj"]


def test_a_model_without_such_a_list_is_refused_with_what_was_looked_for() -> None:
    model = tiny_llama()
    model.config.num_hidden_layers = 5
    with pytest.raises(BadInput, match="one list of 5 modules"):
        find_layers(model)


def test_layers_without_linears_are_refused() -> None:
    model = GPT2LMHeadModel(GPT2Config(vocab_size=48, n_embd=32, n_layer=2, n_head=2))
    with pytest.raises(BadInput, match=r"no nn\.Linear"):
        find_linears(find_layers(model).layers[0])


def test_lists_within_the_layers_are_not_taken_for_them() -> None:
    model = tiny_llama()
    model.model.layers[0].experts = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))
    assert find_layers(model).name == "model.layers"
