"""States of captions against transformers' own run of each caption alone, without padding."""

from pathlib import Path
from typing import Any, Literal, get_args

import pytest
import torch
import transformers
from torch import Tensor

from gear.config import Text
from gear.data import captions
from gear.prompts import Prompts
from gear.text import TextEncoder, TextError, load
from gear.text.encoder import CONTROL, LONE, ROWS, cleaned

CPU = torch.device("cpu")
KINDS = ("qwen3", "llama", "t5", "bart", "bert", "clip")
Side = Literal["left", "right"]
SIDES: tuple[Side, ...] = get_args(Side)
T = 12
CAPTIONS = [
    "a red fox",
    "the dog jumps over the fox",
    "blue",
    "a dog left of the red dog right of the blue fox",
    "of a",
]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def encoder(folder: Path, padding: Side = "left") -> TextEncoder:
    return load(Text(str(folder), tokens=T, padding=padding), CPU, "float32")


def own(kind: str, folder: Path) -> Any:
    """The network by the class that its documentation names."""
    names = {"qwen3": "Qwen3Model", "llama": "LlamaModel", "t5": "T5EncoderModel", "bart": "BartModel"}
    names |= {"bert": "BertModel", "clip": "CLIPModel"}
    net = getattr(transformers, names[kind]).from_pretrained(folder).eval()
    return {"bart": lambda: net.get_encoder(), "clip": lambda: net.text_model}.get(kind, lambda: net)()


@torch.no_grad()
def alone(net: Any, tokenizer: Any, caption: str, tokens: int = T) -> Tensor:
    """The last state of each token of one caption, cut to `tokens`, nothing padded."""
    ids = tokenizer(caption, truncation=True, max_length=tokens, return_tensors="pt")["input_ids"]
    return net(input_ids=ids).last_hidden_state[0]


def text_of(prompts: Prompts, row: int) -> Tensor:
    return prompts.states[row][prompts.valid[row]]


def test_states_are_those_of_each_caption_alone(kind: str, folders: dict[str, Path]) -> None:
    found, net = encoder(folders[kind]), own(kind, folders[kind])
    tokenizer = transformers.AutoTokenizer.from_pretrained(folders[kind])
    prompts = found(CAPTIONS)
    assert prompts.states.shape == (len(CAPTIONS), T, found.width)
    assert (prompts.states.dtype, found.width, found.tokens, found.name) == (torch.float16, 32, T, str(folders[kind]))
    for i, caption in enumerate(CAPTIONS):
        want = alone(net, tokenizer, caption)
        assert want.std() > 0.05
        assert prompts.valid[i].tolist() == [False] * (T - len(want)) + [True] * len(want)  # padded in front
        torch.testing.assert_close(text_of(prompts, i).float(), want, rtol=2e-3, atol=2e-3)
    assert not prompts.states[~prompts.valid].any()
    counts = [len(tokenizer(caption)["input_ids"]) for caption in CAPTIONS]
    assert found.lengths(CAPTIONS) == counts
    assert max(counts) > T > min(counts)  # one is cut, one is padded


@pytest.mark.parametrize("on_gpu", [False, True])
def test_a_caption_does_not_depend_on_those_beside_it(kind: str, on_gpu: bool, folders: dict[str, Path]) -> None:
    """To the bit: alone, in any place of a pass, beside full ones and short ones, in the first pass and the next."""
    found = encoder(folders[kind])
    found.together = on_gpu
    full = CAPTIONS[3]
    for caption in (full, "a red fox"):
        want = found([caption]).states[0]
        for others in (["blue"], [full]):
            together = found((others * 3 + [caption]) * ROWS).states
            assert all(torch.equal(row, want) for row in together[3::4])


def test_a_prompt_reads_as_the_caption_of_training(kind: str, folders: dict[str, Path]) -> None:
    """Whose blanks were single before it was stored, so that it is read as it always was."""
    given = "  a red\t fox\u2028jumps\n\n over\x0b"
    (trained,) = captions.cleaned(given)
    found = encoder(folders[kind])
    assert cleaned(given) == cleaned(trained) == trained == "a red fox jumps over"
    a, b = found([given]), found([trained])
    assert torch.equal(a.states, b.states)
    assert torch.equal(a.valid, b.valid)
    assert found.lengths([given]) == found.lengths([trained])


@pytest.mark.parametrize("text", ["a \x01 b", "a\x1cb", "\ud800  \x00", "", " \u3000"])
def test_captions_that_training_stored_stay_as_they_are(text: str) -> None:
    """As the encoder read them before prompts got single blanks, too."""
    stored = " ".join(text.split())
    assert cleaned(stored) == LONE.sub("\ufffd", CONTROL.sub(" ", stored)) == cleaned(text)


def test_both_ways_say_the_same(kind: str, folders: dict[str, Path]) -> None:
    found = encoder(folders[kind])
    alone = found(CAPTIONS)
    found.together = True
    together = found(CAPTIONS)
    assert torch.equal(alone.valid, together.valid)
    torch.testing.assert_close(alone.states, together.states, rtol=2e-3, atol=2e-3)


def test_the_network_always_reads_the_same_shape(folders: dict[str, Path]) -> None:
    """Other rounding of other shapes and kernels is too rare to be met by tiny networks."""
    found, seen = encoder(folders["qwen3"]), []
    found.together = True  # as on a GPU
    found.net.register_forward_pre_hook(lambda _, args, given: seen.append(given["input_ids"].shape), with_kwargs=True)
    for texts in (CAPTIONS[:1], CAPTIONS, CAPTIONS * 4):
        found(texts)
    found.null()
    assert seen == [(ROWS, T)] * 5
    assert getattr(found.net, "config")._attn_implementation == "eager"  # noqa: B009


def test_padding_in_front_and_behind_are_the_same_rows(kind: str, folders: dict[str, Path]) -> None:
    encoders = [encoder(folders[kind], side) for side in SIDES]
    encoders[0].together = True  # as it always is where padding lies behind
    left, right = (found(CAPTIONS) for found in encoders)
    for i, count in enumerate(left.valid.sum(1).tolist()):
        assert right.valid[i].tolist() == [True] * count + [False] * (T - count)
        assert torch.equal(left.states[i, T - count :], right.states[i, :count])
        assert count == T or right.states[i, count:].any()  # what the network says of padding, as in the release
        assert torch.equal(left.valid[i], right.valid[i].roll(T - count, 0))


def test_the_unconditional_input(kind: str, folders: dict[str, Path]) -> None:
    """The last state of the empty text; a caption without a word is that row and no other."""
    found, net = encoder(folders[kind]), own(kind, folders[kind])
    tokenizer = transformers.AutoTokenizer.from_pretrained(folders[kind])
    want = alone(net, tokenizer, "<end>" if kind == "qwen3" else "")[-1:]
    assert found.null().dtype == torch.float32
    torch.testing.assert_close(found.null(), want, rtol=2e-3, atol=2e-3)
    prompts = found(["", "a red fox", " \n\t", "\x00\x07"])
    for i in (0, 2, 3):
        assert prompts.valid[i].tolist() == [False] * (T - 1) + [True]
        assert torch.equal(prompts.states[i, -1:].float(), found.null())
        assert not prompts.states[i, :-1].any()
    assert torch.equal(prompts.states[1], found(["a red fox"]).states[0])
    behind = encoder(folders[kind], padding="right")
    assert (behind.null().shape, behind.null().any().item()) == ((1, 32), False)
    prompts = behind(["", "a red fox", " "])
    assert prompts.valid.any(1).tolist() == [False, True, False]
    assert not prompts.states[0].any()


def test_a_long_caption_is_cut_and_keeps_its_special_tokens(folders: dict[str, Path]) -> None:
    for kind in ("t5", "bart", "clip"):
        found = encoder(folders[kind])
        assert found._ids(["fox " * 99])[0][-1] == found.tokenizer.eos_token_id
        assert found.lengths(["fox " * 99])[0] > T
    found = encoder(folders["bert"])
    beginning = found(["red fox jumps over the dog a a a a", "red fox jumps over the dog a a a a blue blue blue"])
    assert torch.equal(beginning.states[0], beginning.states[1])


def test_the_tokenizer_has_no_pad_token(folders: dict[str, Path]) -> None:
    found = encoder(folders["qwen3"])
    assert found.tokenizer.pad_token_id is None
    assert found._fill == found.tokenizer.eos_token_id
    assert found(["blue", "a red fox"]).states.isfinite().all()


def test_what_takes_the_place_of_padding_has_no_influence(folders: dict[str, Path], kind: str) -> None:
    found = encoder(folders[kind])
    before = found(CAPTIONS).states
    found._fill = 5
    torch.testing.assert_close(found(CAPTIONS).states, before, rtol=0, atol=0)


def test_it_is_frozen_and_stays_in_evaluation_mode(folders: dict[str, Path]) -> None:
    found = encoder(folders["bert"])  # which has dropout
    want = found(CAPTIONS).states
    found.train()
    assert not any(p.requires_grad for p in found.parameters())
    assert torch.equal(found(CAPTIONS).states, want)
    assert not found.null().requires_grad


def test_bfloat16_is_near_and_is_not_taken_from_outside(folders: dict[str, Path]) -> None:
    exact = encoder(folders["qwen3"])
    low = load(Text(str(folders["qwen3"]), tokens=T), CPU, "bfloat16")
    want, got = exact(CAPTIONS).states.float(), low(CAPTIONS).states.float()
    assert 0 < (got - want).norm() / want.norm() < 0.03
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(exact(CAPTIONS).states.float(), want)


def test_states_that_are_not_finite_are_refused(folders: dict[str, Path]) -> None:
    found = encoder(folders["llama"])
    norm = found.get_parameter("net.norm.weight")
    torch.nn.init.constant_(norm, 1e6)
    states = found(["a red fox"]).states
    assert states.isfinite().all()  # beyond float16 they are its largest
    assert states.abs().max() == torch.finfo(torch.float16).max
    for bad in (torch.nan, torch.inf):
        torch.nn.init.ones_(norm)
        norm.data[3] = bad  # of each state one number
        with pytest.raises(TextError, match=r"llama gives states that are not finite for the caption 'a red"):
            found(["a red fox"])
        with pytest.raises(TextError, match="no finite state for the empty text"):
            found.null()


def test_in_bfloat16_it_is_half_as_large(folders: dict[str, Path]) -> None:
    """Its weights, as in the release; the states are near those of float32."""
    text = Text(str(folders["qwen3"]), tokens=T)
    low, full = (load(text, torch.device("cpu"), precision) for precision in ("bfloat16", "float32"))
    assert {p.dtype for p in low.parameters()} == {torch.bfloat16}
    a, b = low(CAPTIONS), full(CAPTIONS)
    assert a.states.dtype == torch.float16
    assert (a.states - b.states).float().norm() < 0.05 * b.states.float().norm()


def test_no_caption_at_all(folders: dict[str, Path]) -> None:
    found = encoder(folders["qwen3"])
    assert found([]).states.shape == (0, T, 32)
    assert found.lengths([]) == []


@pytest.mark.parametrize("kind", ["bert", "llama", "clip", "t5"])
def test_tokens_that_say_something(kind: str, folders: dict[str, Path]) -> None:
    """Neither special ones nor blanks; with tokens of words, none that is unknown; as far as they are read."""
    found = encoder(folders[kind])
    if kind == "bert":
        assert found.known(["", "a fox", "\N{RED APPLE}", "a \N{RED APPLE}", "zebra " * T + "fox"]) == [0, 2, 0, 1, 0]
    else:
        least = T - sum(map(len, found._ids([""])))
        assert found.known(["", "a  fox", "\N{RED APPLE}", "a" * 99]) == [0, 4, 4, least]
    assert found.known([]) == []


def test_cleaning() -> None:
    assert cleaned("a\x00b\x1b[0m\x7f!\x85") == "a b [0m !"
    assert cleaned(" as it is\n\ttwo  lines\u2028") == "as it is two lines"
    assert cleaned("left\ud800right\udfff") == "left\ufffdright\ufffd"
    for text in (
        "as it is two lines",
        "e\u0301 \u00e9",
        "\u05e9\u05dc\u05d5\u05dd",
        "\U0001f98a\u200d\u2764\ufe0f",
    ):
        assert cleaned(text) == text
