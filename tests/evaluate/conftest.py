"""Random networks of transformers in folders, the same files as the real ones have, made without a connection."""

import json
from pathlib import Path

import pytest
import torch
import transformers

WORDS = ("a", "photo", "of", "red", "blue", "dog", "cat", "object", "colored", "is", "the", "there", "green", "white")
START, END = "<|startoftext|>", "<|endoftext|>"


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP of 2 layers whose tokenizer knows `WORDS` and letters: images of 32 px, texts of 12 tokens."""
    folder = tmp_path_factory.mktemp("clip")
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)] + ["-", ",", ".", "?"]
    tokens = [*letters, *(f"{c}</w>" for c in letters), *(f"{w}</w>" for w in WORDS if len(w) > 1)]
    vocabulary = {token: i for i, token in enumerate([*tokens, START, END])}
    config = transformers.CLIPConfig(
        text_config={
            "vocab_size": len(vocabulary),
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": 12,
            "bos_token_id": vocabulary[START],
            "eos_token_id": vocabulary[END],
            "pad_token_id": vocabulary[END],
        },
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 32,
            "patch_size": 8,
        },
        projection_dim=8,
    )
    torch.manual_seed(0)
    net = transformers.CLIPModel(config)
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.3)
    net.save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return folder


@pytest.fixture(scope="session")
def mask2former_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Mask2Former of 80 classes on a Swin of one block a stage; it reads images at 64 px."""
    folder = tmp_path_factory.mktemp("mask2former")
    shape = {"image_size": 32, "embed_dim": 8, "depths": [1] * 4, "num_heads": [1] * 4, "window_size": 4}
    backbone = transformers.SwinConfig.from_dict(shape | {"out_features": [f"stage{i}" for i in range(1, 5)]})
    names = {0: "person", 79: "toothbrush"}
    config = transformers.Mask2FormerConfig(
        backbone_config=backbone,
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=16,
        dim_feedforward=16,
        encoder_layers=1,
        decoder_layers=2,
        num_attention_heads=2,
        num_queries=6,
        id2label={i: names.get(i, f"class {i}") for i in range(80)},
        label2id={names.get(i, f"class {i}"): i for i in range(80)},
    )
    torch.manual_seed(0)
    transformers.Mask2FormerForUniversalSegmentation(config).save_pretrained(folder)
    preprocessing = {
        "size": {"shortest_edge": 64, "longest_edge": 128},
        "size_divisor": 32,
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
        "image_processor_type": "Mask2FormerImageProcessor",
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing))
    return folder
