"""The real MiniLM: what its sentences are near to, and captions of every kind."""

import pytest
import torch
from torch import Tensor

from gear.config import Text
from gear.text import TextEncoder, TextError, digests, load, require

CPU = torch.device("cpu")


@pytest.fixture
def encoder(minilm: str) -> TextEncoder:
    return load(Text(minilm, tokens=16), CPU, "float32")


def mean(encoder: TextEncoder, texts: list[str]) -> Tensor:
    """A vector of length 1 for each text, as sentence-transformers takes it."""
    prompts = encoder(texts)
    total = (prompts.states.float() * prompts.valid[..., None]).sum(1)
    return total / total.norm(dim=1, keepdim=True)


def test_near_meanings_are_near(encoder: TextEncoder) -> None:
    """The first two are the model card's; its published cosine of the two is not exact to rounding in float16."""
    a = mean(
        encoder, ["This is an example sentence", "Each sentence is converted", "a grinning cat", "a smiling kitten"]
    )
    cosine = a @ a.T
    assert encoder.width == 384
    assert cosine[2, 3] > 0.5 > cosine[0, 2]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 1),
        ("   \n", 1),
        ("\x00\x01\x02", 1),
        ("\u200b\u200f", 1),  # the tokenizer takes them away
        ("\ud83d", None),  # half an emoji
        ("a fox\ud800\x00 jumps", None),
        ("\u0645\u0631\u062d\u0628\u0627 \u05e9\u05dc\u05d5\u05dd", None),  # right to left
        ("\U0001f98a", 3),
        ("\U0001f98a\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467", None),
        ("\u72d0\u72f8", 4),
        ("fox " * 20_000, 16),
        ("x" * 100_000, 3),  # one word, which is longer than any known
        ("!" * 10_000, 16),
        ("[SEP] [PAD] {} %s <b>", None),
    ],
)
def test_any_text(encoder: TextEncoder, text: str, tokens: int | None) -> None:
    prompts = encoder(["a fox", text])
    count = int(prompts.valid[1].sum())
    assert 1 <= count <= 16
    assert tokens in (None, count)
    assert prompts.states.isfinite().all()
    assert prompts.states[1, -count:].float().norm(dim=1).min() > 0
    assert not prompts.states[1, :-count].any()
    assert torch.equal(prompts.states[0], encoder(["a fox"]).states[0])
    assert (count == 1) == torch.equal(prompts.states[1, -1:].float(), encoder.null())


@pytest.mark.parametrize("caption", ["a red fox jumps over the lazy dog " * 3, "a red fox"])
def test_a_caption_does_not_depend_on_those_beside_it(encoder: TextEncoder, caption: str) -> None:
    """To the bit, where a pass of another number of rows, or one without padding, would be rounded otherwise."""
    want = encoder([caption]).states[0]
    full = "every one of these captions is longer than sixteen tokens, so that nothing is padded in the pass"
    for others in ("blue", full):
        for count in (4, 15, 20):
            together = encoder([*[others] * count, caption, "a dog"]).states
            assert torch.equal(together[count], want)


def test_lengths_tell_what_is_cut(encoder: TextEncoder) -> None:
    assert encoder.lengths(["", "a fox", "fox " * 500]) == [2, 4, 502]  # the file says to cut at 128


def test_emoji_are_unknown_to_it(encoder: TextEncoder) -> None:
    """All of them are one text, which is why it is said."""
    assert encoder.known(["\N{HEAVY BLACK HEART}\ufe0f", "\N{RED APPLE}", "a fox", ""]) == [0, 0, 2, 0]


def test_require_and_its_digest(minilm: str) -> None:
    require(Text(minilm, tokens=32))
    assert digests(Text(minilm)) == "155b4cd867a782c5bae5d1fbcc90387ab3fbfc7eab62cda42cb96af8edf52847"
    with pytest.raises(
        TextError, match=r"at most 512 tokens, and generator\.text\.tokens is 600: set it to 512 or less"
    ):
        require(Text(minilm, tokens=600))
    with pytest.raises(TextError, match=r"puts 2 special tokens .* must be at least 3; it is 2"):
        require(Text(minilm, tokens=2))
