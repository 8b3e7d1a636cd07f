"""A text-to-image run of the smallest kind, trained for a few steps on captioned images, with a text encoder of two
random layers."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from gear import run
from gear.config import Config, Text

WORDS = ("a", "an", "red", "green", "blue", "photo", "of", "cat", "dog", "cup", "cups", "three", "left", "right", "the")
TOKENS = 8


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of transformers' BERT with 15 words and a sign for all others."""
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    folder = tmp_path_factory.mktemp("encoders") / "small"
    vocabulary = {token: i for i, token in enumerate(("[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS))}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocab=vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = tokenizers.normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]"
    ).save_pretrained(folder)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    net = transformers.BertModel(transformers.BertConfig(vocab_size=len(vocabulary), **shape))
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.3)
    net.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def talking(tiny: Config, encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run on eight captioned squares, to read and not to change."""
    images = tmp_path_factory.mktemp("captioned")
    for i in range(8):
        name, colour = (("red", (200, 0, 0)), ("blue", (0, 0, 200)))[i % 2]
        Image.new("RGB", (40, 40), colour).save(images / f"{i}.png")
        (images / f"{i}.txt").write_text(f"a photo of a {name} cup")
    text = Text(str(encoder), tokens=TOKENS)
    config = replace(
        tiny,
        steps=40,
        optimizer=replace(tiny.optimizer, generator_lr=1e-2),
        generator=replace(tiny.generator, text=text),
        data=replace(tiny.data, path=str(images)),
    )
    folder = tmp_path_factory.mktemp("runs") / "talking"
    run.train(config, folder)
    return folder
