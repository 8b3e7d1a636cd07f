"""What every test gets: one torch thread, a fixed seed, no user caches; and a run that takes half a second.

pyproject.toml adds the annotation checks.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from gear.config import (
    VQ,
    VQGAN,
    Config,
    Critic,
    Data,
    Gear,
    Generator,
    Optimizer,
    Target,
    Text,
    Tokenizer,
    TokenizerLoss,
    Watch,
)

torch.set_num_threads(1)  # the tests are small, and run beside each other


@pytest.fixture(autouse=True)
def seed() -> int:
    """The same random numbers in a test whichever tests ran before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    return 0


@pytest.fixture(scope="session", autouse=True)
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """For subprocesses too: one thread, and nothing is read from or written to the user's caches."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        for name in ("GEAR_CACHE", "TORCH_HOME", "HF_HOME"):
            patch.setenv(name, str(tmp_path_factory.getbasetemp() / "cache"))
        yield


@pytest.fixture(scope="session")
def images_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two class folders, `disc` and `square`, of four RGB images each, 48 to 96 px, of unequal sides."""
    root = tmp_path_factory.mktemp("images")
    shapes: dict[str, Callable[..., None]] = {
        "disc": ImageDraw.ImageDraw.ellipse,
        "square": ImageDraw.ImageDraw.rectangle,
    }
    for name, draw in shapes.items():
        (root / name).mkdir()
        for i in range(4):
            image = gradient(width=48 + 16 * i, height=96 - 8 * i, tilt=i / 3)
            draw(ImageDraw.Draw(image), (12 + i, 12, 36 + i, 36), fill=(40 * i, 200, 255 - 60 * i))
            image.save(root / name / f"{i}.png")
    return root


def gradient(width: int, height: int, tilt: float) -> Image.Image:
    """A smooth RGB image: red grows to the right, green downwards, blue along the diagonal given by `tilt`."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    return Image.fromarray(np.uint8(255 * np.stack([x, y, tilt * x + (1 - tilt) * y], axis=-1)))


@pytest.fixture(scope="session")
def tiny(images_folder: Path) -> Config:
    """The smallest run with every part: GEAR from scratch on `images_folder`, 4 x 4 tokens, both kinds of dropout."""
    return Config(
        stage=Gear(),
        tokenizer=Tokenizer(
            quantizer=VQ(codebook_size=16, dim=4),
            backbone=VQGAN(
                channels=16,
                multipliers=(1, 2),
                encoder_blocks=1,
                decoder_blocks=1,
                latent=16,
                attention=False,
                groups=8,
                patch=4,
            ),
            critic=Critic(channels=8, layers=1),
            loss=TokenizerLoss(perceptual_trunk="alex"),
        ),
        generator=Generator(layers=2, heads=2, width=32, tap=1, projector=16),
        targets=(Target("efficientnet_lite0"),),
        data=Data(str(images_folder), resolution=32, holdout=0.1),
        optimizer=Optimizer(tokenizer_lr=1e-3, critic_lr=1e-3, generator_lr=1e-3, ema=0.9),
        steps=6,
        batch=3,
        precision="float32",
        log_every=2,
        save_every=100,
        watch=Watch(sample_every=0, evaluate_every=0, trackers=()),
        device="cpu",
    )


@pytest.fixture(scope="session")
def trained(tiny: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of `tiny`, to read and not to change."""
    from gear import run  # late: not every test needs it

    folder = tmp_path_factory.mktemp("runs") / "tiny"
    run.train(tiny, folder)
    return folder


ENCODER: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
    "max_position_embeddings": 64,
}  # fmt: skip
WORDS = (
    "a", "an", "the", "of", "over", "left", "right", "three", "red", "green", "blue", "photo", "cat", "dog", "fox",
    "jumps", "cup", "cups",
)  # fmt: skip


def saved(net: Any, tokenizer: Any, folder: Path) -> Path:
    """A network of transformers, its weights large enough to tell texts apart, and its tokenizer."""
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.3)
    net.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def reading(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random text encoder: a decoder of two layers and 32 channels, saved with its head, as decoders
    are; a token a byte, no special ones beside the end's, none for padding."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer as Words
    from tokenizers import models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = Words(models.BPE(vocab={token: i for i, token in enumerate([*letters, "<end>"])}, merges=[]))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    torch.manual_seed(0)
    config = transformers.Qwen3Config(vocab_size=257, num_key_value_heads=1, head_dim=16, **ENCODER)
    return saved(
        transformers.Qwen3ForCausalLM(config),
        transformers.PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>"),
        tmp_path_factory.mktemp("encoders") / "reading",
    )


@pytest.fixture(scope="session")
def reading_words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of another: BERT, with the head of masked words and, so, without the pooler; a token for each of
    `WORDS`, in lower case, and one for all others; [CLS] in front and [SEP] behind."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer as Words
    from tokenizers import models, normalizers, pre_tokenizers, processors

    vocabulary = {token: i for i, token in enumerate(("[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS))}
    words = Words(models.WordPiece(vocab=vocabulary, unk_token="[UNK]"))
    words.normalizer = normalizers.BertNormalizer()
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    torch.manual_seed(0)
    return saved(
        transformers.BertForMaskedLM(transformers.BertConfig(vocab_size=len(vocabulary), **ENCODER)),
        transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]"),
        tmp_path_factory.mktemp("encoders") / "words",
    )


@pytest.fixture(scope="session")
def captioned_folder(images_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The images of `images_folder`, each with a .txt of one to three captions beside it."""
    root = tmp_path_factory.mktemp("captioned")
    for number, file in enumerate(sorted(images_folder.rglob("*.png"))):
        name = f"{file.parent.name}-{file.stem}"
        (root / f"{name}.png").write_bytes(file.read_bytes())
        texts = [f"a {file.parent.name}", f"{file.parent.name} number {file.stem}", "a shape"][: 1 + number % 3]
        (root / f"{name}.txt").write_text("\n".join(texts))
    return root


@pytest.fixture(scope="session")
def tiny_text(tiny: Config, reading: Path, captioned_folder: Path) -> Config:
    """`tiny` with captions in place of classes, up to twelve bytes of each; both parts trained."""
    return replace(
        tiny,
        generator=replace(tiny.generator, text=Text(str(reading), tokens=12)),
        data=replace(tiny.data, path=str(captioned_folder)),
    )


@pytest.fixture(scope="session")
def trained_text(tiny_text: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of `tiny_text`, to read and not to change."""
    from gear import run  # late: not every test needs it

    folder = tmp_path_factory.mktemp("runs") / "tiny-text"
    run.train(tiny_text, folder)
    return folder
