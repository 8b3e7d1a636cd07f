"""Random networks of two layers in folders, the same files as real ones have, with tokenizers of one token a byte or
word; and MiniLM, where it was fetched."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from gear import weights

CACHE = os.environ.get("GEAR_CACHE")  # of the user, which tests do not see otherwise
END = "<end>"
SMALL: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}


def by_bytes(before: str = "", after: str = "", **special: str) -> transformers.PreTrainedTokenizerFast:
    """A token a byte, as byte-level BPE without merges; `before` and `after` are put around each text."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*letters, *dict.fromkeys(t for t in (before, after, *special.values()) if t)]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    around(tokenizer, before, after)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def around(tokenizer: Tokenizer, before: str, after: str) -> None:
    if before or after:
        special = [(t, tokenizer.token_to_id(t)) for t in (before, after) if t]
        template = " ".join(part for part in (before, "$A", after) if part)
        tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=special)


def llama() -> tuple[Any, Any]:
    """A token for the beginning alone."""
    config = transformers.LlamaConfig(vocab_size=258, max_position_embeddings=64, **SMALL)
    return transformers.LlamaForCausalLM(config), by_bytes(before="<s>", bos_token="<s>", eos_token=END)


def t5() -> tuple[Any, Any]:
    config = transformers.T5Config(vocab_size=258, d_model=32, d_kv=16, d_ff=48, num_layers=2, num_heads=2)
    return transformers.T5ForConditionalGeneration(config), by_bytes(after=END, eos_token=END, pad_token="<pad>")


def bart() -> tuple[Any, Any]:
    """A pair whose encoder transformers has no class for."""
    shape: dict[str, Any] = {
        f"{part}_{name}": n for part in ("encoder", "decoder") for name, n in (("layers", 2), ("ffn_dim", 48))
    }
    shape |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    config = transformers.BartConfig(vocab_size=259, d_model=32, max_position_embeddings=64, pad_token_id=258, **shape)
    return transformers.BartModel(config), by_bytes("<s>", END, bos_token="<s>", eos_token=END, pad_token="<pad>")


def clip() -> tuple[Any, Any]:
    """With its image tower; 24 positions; the pad token is the end's."""
    text = {"vocab_size": 258, "max_position_embeddings": 24, "bos_token_id": 256, "eos_token_id": 257}
    vision = {"image_size": 32, "patch_size": 16, **SMALL}
    config = transformers.CLIPConfig(
        text_config=text | {"pad_token_id": 257} | SMALL, vision_config=vision, projection_dim=8
    )
    return transformers.CLIPModel(config), by_bytes("<s>", END, bos_token="<s>", eos_token=END, pad_token=END)


MADE: dict[str, Callable[[], tuple[Any, Any]]] = {"llama": llama, "t5": t5, "bart": bart, "clip": clip}


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory, reading: Path, reading_words: Path) -> dict[str, Path]:
    """A folder for each kind of network; llama's weights are in several files. To read and not to change."""
    made = {"qwen3": reading, "bert": reading_words}
    for name, make in MADE.items():
        folder = made[name] = tmp_path_factory.mktemp("encoders") / name
        torch.manual_seed(0)
        net, tokenizer = make()
        for p in net.parameters():
            torch.nn.init.normal_(p, std=0.3)
        net.save_pretrained(folder, max_shard_size="20KB" if name == "llama" else "1GB")
        tokenizer.save_pretrained(folder)
    return made


@pytest.fixture
def minilm(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name, with the user's own cache in sight."""
    if CACHE is None:
        monkeypatch.delenv("GEAR_CACHE")
    else:
        monkeypatch.setenv("GEAR_CACHE", CACHE)
    try:
        weights.path("minilm")
    except weights.MissingWeight as missing:
        pytest.skip(f"needs MiniLM: {missing}")
    return "minilm"
