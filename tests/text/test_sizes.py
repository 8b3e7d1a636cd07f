"""How large text encoders are that have not been fetched: the table against the library's networks."""

import json
from pathlib import Path

import pytest
import torch
import transformers

from gear.text import TextError
from gear.text.sizes import KNOWN, Size, of, size

SETTINGS = {  # of the two that have short names, as their repositories have them
    "qwen3-1.7b": transformers.Qwen3Config(
        vocab_size=151_936,
        hidden_size=2048,
        intermediate_size=6144,
        num_hidden_layers=28,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
    ),
    "minilm": transformers.BertConfig(
        vocab_size=30_522, hidden_size=384, intermediate_size=1536, num_hidden_layers=6, num_attention_heads=12
    ),
}


@pytest.mark.parametrize("name", KNOWN)
def test_known_sizes_are_those_of_the_networks(name: str) -> None:
    with torch.device("meta"):
        net = transformers.AutoModel.from_config(SETTINGS[name])
    assert of(net) == size(name)


def test_others_are_read_off_a_configuration_without_weights(tmp_path: Path) -> None:
    config = {"model_type": "bert", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config |= {"intermediate_size": 32, "vocab_size": 50, "max_position_embeddings": 40}
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = size(str(tmp_path))
    assert found == Size(width=16, parameters=found.parameters, matrices=2 * (4 * 16 * 16 + 2 * 16 * 32))
    assert found.parameters > found.matrices + 16 * (50 + 40)


def test_code_of_its_own_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "auto_map": {"AutoModel": "x.Y"}}))
    with pytest.raises(TextError, match="asks for code of its own"):
        size(str(tmp_path))
