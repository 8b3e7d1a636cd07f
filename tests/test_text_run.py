"""Runs whose condition is a caption: every stage, resumed, streamed, mixed, on stored codes; and what is refused."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from gear import build, run
from gear import encode as encoding
from gear.config import VQ, Config, ConfigError, Frozen, Gear, Naive, Part, Text, Warmup, Watch, flips
from gear.config_json import from_json, read, to_json
from gear.data import Images
from gear.encode import encode
from gear.exporting import export
from gear.generator import generate
from gear.inference import draw_prompts
from gear.probe.features import states
from gear.prompts import Prompts
from gear.step import Batch
from gear.text import TextError
from gear.train import log, state
from gear.train.batches import Stored, Streamed
from gear.train.loop import part_of
from gear.train.reader import Reader
from gear.train.state import CheckpointError

CPU = torch.device("cpu")


def frozen(config: Config, tokenizer: Path) -> Config:
    return replace(config, stage=Frozen(), tokenizer=replace(config.tokenizer, init=str(tokenizer)))


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return dict(state.load(folder).tensors)


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(t, b[name]) for name, t in a.items())


def losses(config: Config, steps: int = 4) -> list[dict[str, float]]:
    """Of the first steps, as the loop makes them."""
    fed = run.supply(config, None, CPU)
    training = build.training(config, len(fed.classes), fed.dims, CPU, null=fed.null)
    made = []
    for step in range(steps):
        torch.manual_seed(step)
        made.append({name: float(value) for name, value in training.step(fed.batches(step)).terms.items()})
    return made


def test_the_folder(tiny_text: Config, trained_text: Path) -> None:
    """It holds all that sampling needs but the text encoder, and says which that was."""
    assert read(trained_text / run.CONFIG) == run.in_full(tiny_text)
    about = json.loads((trained_text / "data.json").read_text())
    assert len(about["text_encoder"]) == 64
    checkpoint = state.load(trained_text)
    assert checkpoint.classes == ()
    reader = build.reader(tiny_text, CPU, None)
    assert reader is not None
    assert torch.equal(checkpoint.part("generator")["cls_embedding.null"], reader.null)
    assert torch.equal(checkpoint.part("generator_ema")["cls_embedding.null"], reader.null)
    lines = log.read(trained_text / log.NAME)
    assert all(line["ntp"] > 0 for line in lines)


def test_a_run_draws_what_it_is_asked_for(trained_text: Path) -> None:
    pair = run.load(trained_text, "cpu")
    assert pair.generator is not None
    assert pair.text is not None
    prompts = pair.text(["a disc", "a square"])
    q = generate(pair.generator, torch.tensor([0, 1, 1]), prompts=prompts, seed=0, cfg_scale=2.0)
    assert q.shape == (3, 16)
    assert pair.tokenizer.decode(q).shape == (3, 3, 32, 32)


@pytest.mark.parametrize("stage", [Gear(), Frozen(), Naive()], ids=lambda s: type(s).__name__)
def test_an_interrupted_run_is_the_same_to_the_last_bit(
    tiny_text: Config, trained: Path, tmp_path: Path, stage: Gear | Frozen | Naive
) -> None:
    config = replace(frozen(tiny_text, trained), stage=stage)
    run.train(replace(config, steps=3), tmp_path / "twice")
    run.train(config, tmp_path / "twice")
    run.train(config, tmp_path / "once")
    assert same(tensors(tmp_path / "twice"), tensors(tmp_path / "once"))


def test_a_streamed_mixture_resumes_to_the_last_bit(
    tiny_text: Config, trained: Path, captioned_folder: Path, tmp_path: Path
) -> None:
    parts = (Part(str(captioned_folder), 0.5), Part("builtin", 2.0))
    data = replace(tiny_text.data, mixture=parts[:1], crop="random", workers=0)
    config = replace(frozen(tiny_text, trained), data=data)
    assert isinstance(run.supply(config, None, CPU).batches, Streamed)
    run.train(replace(config, steps=3), tmp_path / "twice")
    run.train(config, tmp_path / "twice")
    run.train(config, tmp_path / "once")
    assert same(tensors(tmp_path / "twice"), tensors(tmp_path / "once"))
    prepared = replace(config, data=replace(data, mixture=parts, crop="center"))
    assert len(losses(prepared)) == 4


def test_the_middle_may_be_decoded_at_each_visit(tiny_text: Config, trained: Path) -> None:
    """As of a set that is larger than the disk: the same squares and captions as prepared ones."""
    prepared = frozen(tiny_text, trained)
    streamed = replace(prepared, data=replace(prepared.data, prepare=False, workers=0))
    seen = []
    for config in (prepared, streamed):
        fed = run.supply(config, None, CPU)
        assert isinstance(fed.batches, Streamed) == (config is streamed)
        squares, texts = set(), set()
        for step in range(20):
            batch = fed.batches(step)
            assert isinstance(batch, Batch)
            assert isinstance(batch.c, Prompts)
            squares |= {x.numpy().tobytes() for x in batch.x}
            texts |= {states.numpy().tobytes() for states in batch.c.states}
        seen.append((squares, texts))
    assert seen[0] == seen[1]
    assert min(map(len, seen[0])) > 4
    assert len(losses(streamed)) == 4


@pytest.mark.parametrize("crop", ["center", "random"])
def test_stored_captions_give_the_same_losses(tiny_text: Config, trained: Path, tmp_path: Path, crop: str) -> None:
    """No image, no tokenizer and no text encoder is run then."""
    views = {"views": 2} if crop == "random" else {}
    config = frozen(tiny_text, trained)
    config = replace(config, data=replace(config.data, crop=crop, workers=0, **views))
    encode(config, tmp_path / "codes", features=True)
    stored = replace(config, data=replace(config.data, codes=str(tmp_path / "codes")))
    fed = run.supply(stored, None, CPU)
    assert isinstance(fed.batches, Stored)
    assert (fed.images, fed.reader) == (None, None)
    assert losses(stored) == losses(config)
    assert stored.generator.text is not None
    fewer = replace(stored.generator.text, tokens=8)
    other = replace(stored, generator=replace(stored.generator, text=fewer))
    with pytest.raises(ConfigError, match=r"was encoded with text .*'tokens': 12"):
        run.supply(other, None, CPU)


def test_a_run_on_stored_captions_draws_no_sheets(
    tiny_text: Config, trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It has states of captions, and no words to stand under them."""
    config = replace(frozen(tiny_text, trained), steps=2, watch=Watch(sample_every=1, samples=2, trackers=()))
    encode(config, tmp_path / "codes", features=True)
    run.train(replace(config, data=replace(config.data, codes=str(tmp_path / "codes"))), tmp_path / "run")
    assert "no captions: nothing is drawn or measured" in caplog.text
    assert state.load(tmp_path / "run").step == 2


@pytest.mark.parametrize("padding", ["left", "right"])
def test_a_probe_reads_the_tokens_with_no_caption(tiny_text: Config, trained_text: Path, padding: str) -> None:
    generator = run.load(trained_text, "cpu").generator
    assert generator is not None
    generator.cls_embedding.text = replace(generator.cls_embedding.text, padding=padding)
    q = torch.randint(16, (2, 16))
    read = list(states(generator, q))
    told = generator(q[:, :-1], generator.nothing(2))
    assert len(read) == 3
    assert torch.equal(read[generator.tap], told.tap)
    assert read[0].shape == (2, 16, 32)


def test_an_export_draws_what_the_run_draws(trained_text: Path, tmp_path: Path) -> None:
    """And at its size, which the folders of the two say together."""
    for part in ("tokenizer", "generator"):
        export(trained_text, tmp_path / part, "hub", part)
    pairs = [run.load(trained_text, "cpu"), run.load(tmp_path / "generator", "cpu", tokenizer=tmp_path / "tokenizer")]
    assert pairs[1].checkpoint.config.data.resolution == 32
    a, b = (draw_prompts(pair, ["a disc", "a square"], 0) for pair in pairs)
    assert torch.equal(a, b)


def test_what_the_card_of_an_export_says_works(
    trained_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for part in ("tokenizer", "generator"):
        export(trained_text, Path(part), "hub", part)
    (code,) = re.findall(r"```python\n(.*?)```", Path("generator/README.md").read_text(), re.S)
    code = code.replace("that of its training", "tokenizer")
    found: dict[str, Any] = {}
    exec(code, found)
    assert found["images"].shape == (3, 3, 32, 32)


def test_tokens_alone_may_be_stored(tiny_text: Config, trained: Path, tmp_path: Path) -> None:
    config = frozen(tiny_text, trained)
    encode(config, tmp_path / "codes", features=False)
    stored = replace(config, data=replace(config.data, codes=str(tmp_path / "codes")))
    assert losses(stored) == losses(config)


def test_a_reader_remembers_what_it_read(tiny_text: Config) -> None:
    reader = build.reader(tiny_text, CPU, 3)
    assert reader is not None
    read, passes = reader(["a", "b", "a"]), []
    reader.encoder.register_forward_hook(lambda *_: passes.append(1))
    again = reader(["b", "a"])
    assert passes == []
    assert torch.equal(again.states, read.states[[1, 0]])
    assert torch.equal(again.valid, read.valid[[1, 0]])
    forgetful = Reader(reader.encoder, None)(["b", "a", "c", "d"])
    assert torch.equal(forgetful.states[:2], again.states)
    assert torch.equal(reader(["b", "a", "c", "d"]).states, forgetful.states)  # more than it has room for


def test_every_caption_of_an_image_comes(tiny_text: Config, trained: Path) -> None:
    fed = run.supply(frozen(tiny_text, trained), None, CPU)
    assert fed.images is not None
    assert isinstance(fed.images.train, Images)
    assert fed.images.train.captions is not None
    reader = build.reader(tiny_text, CPU, None)
    assert reader is not None
    texts = sorted({text for several in fed.images.train.captions for text in several})
    known, seen = reader(texts), set()
    for step in range(20):
        c = fed.batches(step).c
        assert isinstance(c, Prompts)
        for row in c.states:
            seen |= {i for i in range(len(texts)) if torch.equal(known.states[i], row)}
    assert seen == set(range(len(texts)))
    assert len(texts) > 5


def test_parts_of_a_batch_have_their_captions(tiny_text: Config, trained: Path) -> None:
    batch = run.supply(frozen(tiny_text, trained), None, CPU).batches(0)
    part = part_of(batch, 1, 3)
    assert isinstance(batch.c, Prompts)
    assert isinstance(part.c, Prompts)
    assert torch.equal(part.c.states, batch.c.states[1:2])
    assert len(part.c) == 1


def test_captions_are_not_flipped_unless_asked(tiny: Config, tiny_text: Config) -> None:
    assert (flips(tiny), flips(tiny_text)) == (True, False)
    assert flips(replace(tiny_text, data=replace(tiny_text.data, flip=True)))


def test_flipped_captions_are_warned_of(
    tiny_text: Config, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = replace(frozen(tiny_text, trained), steps=1)
    run.train(replace(config, data=replace(config.data, flip=True)), tmp_path / "run")
    assert "their captions are not" in " ".join(capsys.readouterr().out.split())


def test_a_warm_up_reads_no_caption(tiny_text: Config, images_folder: Path, tmp_path: Path) -> None:
    """Nor does it need the encoder: the tokenizer of a text-to-image run may be warmed up on any images."""
    text = Text("nowhere/at-all", tokens=12)
    data = replace(tiny_text.data, path=str(images_folder))
    config = replace(tiny_text, stage=Warmup(), generator=replace(tiny_text.generator, text=text), data=data, steps=1)
    run.train(config, tmp_path / "run")
    assert state.load(tmp_path / "run").step == 1


def test_a_configuration_with_text_is_kept_as_json(tiny_text: Config) -> None:
    parts = (Part("more", 0.5),)
    config = replace(tiny_text, data=replace(tiny_text.data, mixture=parts))
    assert from_json(to_json(config)) == config
    assert from_json(to_json(replace(config, generator=replace(config.generator, text=None)))).generator.text is None


# ------------------------------------------------------------------------------------------- refused


def test_a_generator_that_read_another_encoder_is_refused(
    tiny_text: Config, trained_text: Path, trained: Path, reading: Path, tmp_path: Path
) -> None:
    import transformers

    narrow = tmp_path / "narrow"
    sizes: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 48, "head_dim": 8, "num_hidden_layers": 1}
    heads: dict[str, Any] = {"num_attention_heads": 2, "num_key_value_heads": 1}
    config = transformers.Qwen3Config(vocab_size=257, max_position_embeddings=64, **sizes, **heads)
    transformers.Qwen3Model(config).save_pretrained(narrow)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (narrow / name).write_bytes((reading / name).read_bytes())
    generator = replace(tiny_text.generator, init=str(trained_text), text=Text(str(narrow), tokens=12))
    config = replace(frozen(tiny_text, trained), generator=generator)
    with pytest.raises(CheckpointError, match=r"reads a text encoder of 32 channels.*this run has 16"):
        run.train(config, tmp_path / "run")


def another(reading: Path, folder: Path) -> Path:
    """A text encoder like `reading`, of other weights."""
    import transformers

    net = transformers.AutoModel.from_pretrained(reading)
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.5)
    net.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((reading / name).read_bytes())
    return folder


def test_another_encoder_of_the_same_width_brings_its_own_unconditional_input(
    tiny_text: Config, trained_text: Path, trained: Path, reading: Path, tmp_path: Path
) -> None:
    text = Text(str(another(reading, tmp_path / "other")), tokens=12)
    config = frozen(
        replace(tiny_text, generator=replace(tiny_text.generator, init=str(trained_text), text=text)), trained
    )
    run.train(replace(config, steps=1), tmp_path / "run")
    reader = build.reader(config, CPU, None)
    assert reader is not None
    assert torch.equal(state.load(tmp_path / "run").part("generator")["cls_embedding.null"], reader.null)


def test_a_run_does_not_go_on_with_other_captions_or_another_encoder(
    tiny_text: Config, trained: Path, captioned_folder: Path, reading: Path, tmp_path: Path
) -> None:
    images, encoder = tmp_path / "images", tmp_path / "encoder"
    shutil.copytree(captioned_folder, images)
    shutil.copytree(reading, encoder)
    text, data = Text(str(encoder), tokens=12), replace(tiny_text.data, path=str(images))
    config = frozen(replace(tiny_text, generator=replace(tiny_text.generator, text=text), data=data), trained)
    run.train(replace(config, steps=2), tmp_path / "run")
    pair = run.load(tmp_path / "run", "cpu")
    assert pair.text is not None
    (images / "disc-1.txt").write_text("something else")
    with pytest.raises(ConfigError, match="captions of the images differ"):
        run.train(config, tmp_path / "run")
    shutil.copy(captioned_folder / "disc-1.txt", images / "disc-1.txt")
    another(reading, encoder)
    with pytest.raises(ConfigError, match="files of the text encoder differ"):
        run.train(config, tmp_path / "run")
    with pytest.raises(TextError, match="was trained with another text encoder"):
        run.load(tmp_path / "run", "cpu").text  # noqa: B018


def test_codes_of_a_mixture_are_of_that_mixture(
    tiny_text: Config, trained: Path, captioned_folder: Path, tmp_path: Path
) -> None:
    config = frozen(tiny_text, trained)
    shutil.copytree(captioned_folder, tmp_path / "more")
    mixed = replace(config, data=replace(config.data, mixture=(Part(str(tmp_path / "more"), 0.5),)))
    encode(mixed, tmp_path / "codes", features=True)
    codes = str(tmp_path / "codes")
    assert losses(replace(mixed, data=replace(mixed.data, codes=codes))) == losses(mixed)
    with pytest.raises(ConfigError, match="encoded with mixture"):
        run.supply(replace(config, data=replace(config.data, codes=codes)), None, CPU)
    plain = replace(config, generator=replace(config.generator, text=None))
    encode(plain, tmp_path / "plain", features=False)
    with pytest.raises(ConfigError, match="encoded with captioned False"):
        run.supply(replace(config, data=replace(config.data, codes=str(tmp_path / "plain"))), None, CPU)


def test_captions_beyond_those_that_fit_are_said(
    tiny_text: Config, trained: Path, captioned_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Of files nobody knows how many there are before they are read: the first images tell."""
    monkeypatch.setattr(encoding, "FEW", 1)
    config = frozen(tiny_text, trained)
    config = replace(config, data=replace(config.data, prepare=False, workers=0))
    encode(config, tmp_path / "codes", features=True)
    assert "have more than 1 captions: the further ones are not stored" in caplog.text
    monkeypatch.setattr(encoding, "FEW", 512)
    encode(config, tmp_path / "all", features=True)
    assert losses(replace(config, data=replace(config.data, codes=str(tmp_path / "all")))) == losses(config)


def test_a_class_conditional_generator_is_no_start(tiny_text: Config, trained: Path, tmp_path: Path) -> None:
    generator = replace(tiny_text.generator, init=str(trained))
    with pytest.raises(CheckpointError, match=r"another generator.*generator\.text"):
        run.train(replace(frozen(tiny_text, trained), generator=generator), tmp_path / "run")


def test_a_tokenizer_of_another_codebook_is_refused(tiny_text: Config, trained: Path, tmp_path: Path) -> None:
    config = frozen(tiny_text, trained)
    other = replace(config, tokenizer=replace(config.tokenizer, quantizer=VQ(codebook_size=32, dim=4)))
    with pytest.raises(CheckpointError, match="codebook_size: 16 -> 32"):
        run.train(other, tmp_path / "run")


def test_an_encoder_that_is_not_there_is_named_before_the_long_work(
    tiny_text: Config, trained: Path, tmp_path: Path
) -> None:
    config = frozen(tiny_text, trained)
    text = Text(str(tmp_path / "gone"), tokens=12)
    with pytest.raises(TextError, match="gone"):
        run.train(replace(config, generator=replace(config.generator, text=text)), tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoint.safetensors").exists()


def test_images_without_captions_are_refused(
    tiny_text: Config, trained: Path, images_folder: Path, tmp_path: Path
) -> None:
    config = frozen(tiny_text, trained)
    with pytest.raises(ValueError, match="caption"):
        run.train(replace(config, data=replace(config.data, path=str(images_folder))), tmp_path / "run")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (Text(tokens=0), "generator.text.tokens must be at least 1"),
        (Text(drop=1.0), "generator.text.drop must be in"),
        (Text(dual=3), "generator.text.dual must be from 0 to layers = 2"),
        (Text(encoder=""), "generator.text.encoder must be a text encoder"),
    ],
)
def test_an_impossible_text_is_named(tiny_text: Config, text: Text, message: str) -> None:
    from gear.config_check import check

    with pytest.raises(ConfigError, match=message.replace(".", r"\.")):
        check(replace(tiny_text, generator=replace(tiny_text.generator, text=text)))
