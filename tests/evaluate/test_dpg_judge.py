"""Judges on random networks in transformers' files: what they answer is what the library's own calls answer."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers

from gear.evaluate import dpg_judge
from gear.evaluate.dpg_judge import is_yes, opened
from gear.store.pretrained import PretrainedError

QUESTIONS = ["is there a dog ?", "is the cat red ?", "is it a photo of a blue object there ?"]
WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "yes",
    "no",
    *("is", "there", "a", "dog", "the", "cat", "red", "it", "photo", "of", "blue", "object", "?"),
]


@pytest.mark.parametrize(
    ("answer", "yes"),
    [
        ("yes", True),
        ("Yes.", True),
        (" yes, it is", True),
        ("no", False),
        ("", False),
        ("yesterday", False),
        ("no, yes", False),
    ],
)
def test_yes_is_the_first_word(answer: str, yes: bool) -> None:
    assert is_yes(answer) is yes


def vocabulary(folder: Path) -> Any:
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    return transformers.BertTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("blip")
    text = {"vocab_size": len(WORDS), "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    text |= {
        "num_attention_heads": 2,
        "encoder_hidden_size": 16,
        "bos_token_id": 2,
        "sep_token_id": 3,
        "eos_token_id": 3,
    }
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision |= {"image_size": 32, "patch_size": 8}
    config = transformers.BlipConfig(text_config=text | {"pad_token_id": 0}, vision_config=vision, projection_dim=8)
    torch.manual_seed(0)
    net = transformers.BlipForQuestionAnswering(config)
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.5)
    net.save_pretrained(folder)
    processor = transformers.BlipImageProcessor(size={"height": 32, "width": 32})
    transformers.BlipProcessor(processor, vocabulary(folder)).save_pretrained(folder)
    if not (folder / "preprocessor_config.json").is_file():
        processor.save_pretrained(folder)
    return folder


def test_blip_writes_what_it_writes_in_the_library(blip: Path) -> None:
    judge = opened(str(blip), batch=2)
    pixels = torch.randint(0, 256, (3, 40, 40), dtype=torch.uint8)
    said = judge.answers(pixels, QUESTIONS)
    net = transformers.BlipForQuestionAnswering.from_pretrained(blip).eval()
    processor: Any = transformers.BlipProcessor.from_pretrained(blip)
    image = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    for question, answer in zip(QUESTIONS, said, strict=True):
        inputs = processor(images=image, text=question, return_tensors="pt")
        written = net.generate(**inputs, max_new_tokens=dpg_judge.WORDS, do_sample=False)
        assert answer == processor.decode(written[0], skip_special_tokens=True)
    about = judge.about()
    assert (about["kind"], list(about["sha256"])) == ("BlipForQuestionAnswering", ["model.safetensors"])


def test_vilt_chooses_the_likeliest_answer(tmp_path: Path) -> None:
    config = transformers.ViltConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        image_size=32, patch_size=8, id2label={0: "yes", 1: "no", 2: "2"}, label2id={"yes": 0, "no": 1, "2": 2},
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.ViltForQuestionAnswering(config).save_pretrained(tmp_path)
    processor = transformers.ViltImageProcessor(size={"shortest_edge": 32})
    transformers.ViltProcessor(processor, vocabulary(tmp_path)).save_pretrained(tmp_path)
    if not (tmp_path / "preprocessor_config.json").is_file():
        processor.save_pretrained(tmp_path)
    said = opened(str(tmp_path)).answers(torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8), QUESTIONS)
    assert len(said) == 3
    assert set(said) <= {"yes", "no", "2"}


def test_a_network_that_answers_nothing(clip_folder: Path, tmp_path: Path) -> None:
    for file in clip_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    for name in dpg_judge.FILES:
        (tmp_path / name).write_text(json.dumps({}))
    with pytest.raises(PretrainedError, match="cannot be read as a"):
        opened(str(tmp_path))
