"""Models as folders: what is saved is what is loaded, strictly; and public files through the same door."""

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import (
    GatedRepoError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

import gear
from gear import exporting, inference, provenance, run, sources, weights
from gear.config import FAMILIES, LFQ, MAGVIT2, SIZES, VQ, VQGAN, ConfigError, Generator
from gear.generator import Generator as GeneratorNet
from gear.sharing import CONFIG, FORMAT, MODEL, ModelError
from gear.store.card import rows
from gear.tokenizer.tokenizer import Tokenizer
from gear.train.state import CheckpointError

TOKENIZERS = {
    "VQGAN": (VQ(32, 4), VQGAN(8, (1, 2), encoder_blocks=1, decoder_blocks=2, latent=8, groups=4)),
    "MAGVIT2": (LFQ(5), MAGVIT2(8, (1, 2), blocks=1, groups=4)),
}


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_a_tokenizer_survives_its_folder(tmp_path: Path, kind: str) -> None:
    first = Tokenizer(*TOKENIZERS[kind])
    first.save_pretrained(tmp_path)
    again = gear.Tokenizer.from_pretrained(tmp_path)
    assert not again.training
    assert (again.quantizer, again.backbone) == TOKENIZERS[kind]
    x = torch.rand(1, 3, 16, 16) * 2 - 1
    q = first.encode(x)
    assert torch.equal(again.encode(x), q)
    assert torch.equal(again.decode(q), first.decode(q))


def test_a_generator_survives_its_folder(tmp_path: Path) -> None:
    config = Generator(layers=2, heads=2, width=32, tap=1, projector=8, class_rotary="zero")
    first = GeneratorNet(config, codebook_size=20, classes=2, grid=(2, 3), target_dims={"vjepa2.1-b": 6})
    torch.nn.init.normal_(first.output.weight)
    first.class_names = ("cat", "dog")
    first.save_pretrained(tmp_path)
    again = gear.Generator.from_pretrained(tmp_path)
    assert (again.config, again.grid, again.null_label, again.class_names) == (config, (2, 3), 2, ("cat", "dog"))
    tokens, labels = torch.randint(20, (2, 5)), torch.tensor([0, 2])
    a, b = first.eval()(tokens, labels), again(tokens, labels)
    assert torch.equal(a.logits, b.logits)
    assert torch.equal(a.projected["vjepa2.1-b"], b.projected["vjepa2.1-b"])


def test_the_folder_has_a_filled_card_and_no_pickle(tmp_path: Path) -> None:
    Tokenizer(*TOKENIZERS["VQGAN"]).save_pretrained(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {CONFIG, MODEL, "README.md"}
    card = (tmp_path / "README.md").read_text()
    count = sum(p.numel() for p in Tokenizer(*TOKENIZERS["VQGAN"]).parameters())
    for said in ("library_name: gear", "image-tokenizer", f"{count:,}", "quantizer.codebook_size", "32", "{{"):
        assert (said in card) == (said != "{{")


def test_the_card_names_the_folder_and_the_task_and_no_licence(tmp_path: Path) -> None:
    Tokenizer(*TOKENIZERS["VQGAN"]).save_pretrained(tmp_path / "mine")
    card = (tmp_path / "mine" / "README.md").read_text()
    assert 'Tokenizer.from_pretrained("mine")' in card
    assert "pipeline_tag: image-to-image" in card
    assert not re.search("license|None|REPOSITORY", card)


def test_the_table_of_a_card_is_short(tmp_path: Path) -> None:
    config = Generator(layers=2, heads=2, width=32, projector=8)
    net = GeneratorNet(config, codebook_size=20, classes=1000, grid=(2, 3), target_dims={"vjepa2.1-b": 6})
    net.class_names = tuple(f"n{i:08}" for i in range(1000))
    net.save_pretrained(tmp_path)
    card = (tmp_path / "README.md").read_text()
    for row in ("class_names | 1,000, in config.json", "grid | 2, 3", "target_dims.vjepa2.1-b | 6", "classes | 1000"):
        assert f"| {row} |\n" in card
    assert "pipeline_tag: unconditional-image-generation" in card
    assert not re.search("n00000001|None|config.tap|config.classes", card)
    assert len(gear.Generator.from_pretrained(tmp_path).class_names) == 1000


def test_a_cell_cannot_break_the_table() -> None:
    assert rows({"a": {"b": {"c": "x|y\nz"}}, "d": [], "e": None, "f": False}) == {"a.b.c": r"x\|y z", "f": "False"}


TOLD = {"training": "Averaged weights after 3 steps.", "license": "cc-by-4.0", "title": "Mine"}


@pytest.mark.parametrize("name", ["you/model", "model"])
def test_what_is_pushed_names_its_repository_and_keeps_what_the_folder_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    uploaded: list[tuple[str, str]] = []

    def upload(_: HfApi, *, repo_id: str, folder_path: Path, **__: Any) -> str:
        assert {file.name for file in folder_path.iterdir()} == {CONFIG, MODEL, "README.md"}
        uploaded.append((repo_id, (folder_path / "README.md").read_text()))
        return "address"

    made = SimpleNamespace(repo_id="you/model")  # the hub completes a name without its owner
    monkeypatch.setattr(HfApi, "create_repo", lambda *_, **__: made)
    monkeypatch.setattr(HfApi, "upload_folder", upload)
    first = Tokenizer(*TOKENIZERS["VQGAN"])
    first.save_pretrained(tmp_path / "mine", model_card_kwargs=TOLD)
    assert gear.Tokenizer.from_pretrained(tmp_path / "mine").push_to_hub(name) == "address"
    first.save_pretrained(tmp_path / "other", push_to_hub=True, repo_id=name)
    assert [repository for repository, _ in uploaded] == ["you/model", "you/model"]
    for _, card in uploaded:
        for said in ('Tokenizer.from_pretrained("you/model")', TOLD["training"], "license: cc-by-4.0", "# Mine\n"):
            assert said in card
    assert 'from_pretrained("other")' in (tmp_path / "other" / "README.md").read_text()


@pytest.mark.parametrize("card", [None, 3, [], {"title": 3, "about": None, "license": ["mit"], "more": "text"}])
def test_what_a_stranger_says_of_the_card_is_text_or_nothing(tmp_path: Path, card: Any) -> None:
    Tokenizer(*TOKENIZERS["VQGAN"]).save_pretrained(tmp_path)
    found = json.loads((tmp_path / CONFIG).read_text())
    (tmp_path / CONFIG).write_text(json.dumps(found | {"card": card}))
    assert Tokenizer.from_pretrained(tmp_path).card == {}


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: (folder / CONFIG).unlink(), "must hold a Tokenizer that gear saved; it holds no config.json"),
        *(
            (
                lambda folder, text=text: (folder / CONFIG).write_text(text),
                f"{CONFIG} does not describe a model that gear",
            )
            for text in ("{}", '{"format": "', "[]", json.dumps({"format": FORMAT, "kind": "Tokenizer"}))
        ),
        (lambda folder: (folder / MODEL).write_bytes(b"\0" * 20), "not a whole safetensors file"),
        (lambda folder: (folder / MODEL).unlink(), "model.safetensors"),
    ],
)
def test_a_damaged_folder_is_one_sentence(tmp_path: Path, damage, said: str) -> None:
    Tokenizer(*TOKENIZERS["VQGAN"]).save_pretrained(tmp_path)
    damage(tmp_path)
    with pytest.raises((ModelError, OSError), match=said):
        Tokenizer.from_pretrained(tmp_path)


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    Tokenizer(*TOKENIZERS["VQGAN"]).save_pretrained(tmp_path)
    about = json.loads((tmp_path / CONFIG).read_text())
    about["settings"]["quantizer"]["codebook_size"] = 64
    (tmp_path / CONFIG).write_text(json.dumps(about))
    with pytest.raises(ModelError, match=r"quantize\.embedding\.weight is \(32, 4\) and should be \(64, 4\)"):
        Tokenizer.from_pretrained(tmp_path)
    with pytest.raises(ModelError, match="must hold a Generator that gear saved; it holds Tokenizer"):
        GeneratorNet.from_pretrained(tmp_path)


# ------------------------------------------------------------------------------------------------------- the hub

NOWHERE = "http://127.0.0.1:9"  # the discard port, which refuses


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache, and no hub: whoever asks it twice waits."""
    monkeypatch.setattr(constants, "ENDPOINT", NOWHERE)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", NOWHERE + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail("asks again"))
    return tmp_path / "cache"


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        (
            "nonexistent_folder",
            {},
            r"config\.json of nonexistent_folder could not be had from the hub, http://127.*refused",
        ),
        ("you/model", {"force_download": True}, r"config\.json of you/model could not be had from the hub.*refused"),
        ("you/model", {"local_files_only": True}, r"this is offline \(HF_HUB_OFFLINE or local_files_only\)\. Give"),
        ("runs/mine/tokenizer", {}, r"runs/mine/tokenizer is no name of a repository \(OWNER/NAME\) either\. Give"),
        ("../elsewhere", {}, r"\.\./elsewhere is no name of a repository"),
    ],
)
def test_neither_a_folder_nor_a_hub_is_one_sentence(name: str, options: dict[str, Any], said: str) -> None:
    for kind in (Tokenizer, GeneratorNet):
        with pytest.raises(ModelError, match=rf"^there is no folder {re.escape(name)} here, and .*{said}"):
            kind.from_pretrained(name, **options)


@pytest.mark.usefixtures("hub")
def test_offline_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"no folder nonexistent_folder here, .*this is offline \(HF_HUB_OFFLINE"):
        Tokenizer.from_pretrained("nonexistent_folder")


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        (
            RepositoryNotFoundError,
            "and the hub has no repository you/model that can be seen from here .*`hf auth login`",
        ),
        (GatedRepoError, "you/model must be asked for: do so on its page"),
        (RevisionNotFoundError, "the hub's repository you/model has no revision v2"),
        (RemoteEntryNotFoundError, r"the hub's repository you/model has no config\.json"),
    ],
)
def test_what_the_hub_refuses_is_said(monkeypatch: pytest.MonkeyPatch, refusal: type[Exception], said: str) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise refusal.__new__(refusal, "no")

    monkeypatch.setattr("gear.store.hub.get_hf_file_metadata", refuse)
    with pytest.raises(ModelError, match=said):
        Tokenizer.from_pretrained("you/model", revision="v2")


def test_a_repository_in_the_cache_needs_no_hub(hub: Path) -> None:
    repository, commit = hub / "models--you--model", "0" * 40
    first = Tokenizer(*TOKENIZERS["VQGAN"])
    first.save_pretrained(repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    again = Tokenizer.from_pretrained("you/model")
    x = torch.rand(1, 3, 16, 16) * 2 - 1
    assert torch.equal(again.encode(x), first.encode(x))


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "vq.pt").touch()
    with pytest.raises(ModelError, match=r"vq\.pt is a file, .*Tokenizer\.from_released reads the public files"):
        Tokenizer.from_pretrained(tmp_path / "vq.pt")


# ------------------------------------------------------------------------------------------------------- runs, files


def test_an_exported_run_samples_the_same_images(trained: Path, tmp_path: Path) -> None:
    for part in ("tokenizer", "generator"):
        exporting.export(trained, tmp_path / part, "hub", part)
    a = run.load(trained, "cpu")
    b = run.load(tmp_path / "generator", "cpu", tokenizer=tmp_path / "tokenizer", resolution=32)
    assert a.generator is not None
    assert b.generator is not None
    assert b.checkpoint.classes == a.checkpoint.classes
    assert all(torch.equal(t, b.generator.state_dict()[name]) for name, t in a.generator.state_dict().items())
    assert all(torch.equal(t, b.tokenizer.state_dict()[name]) for name, t in a.tokenizer.state_dict().items())
    assert "stage" in (tmp_path / "tokenizer" / "README.md").read_text()  # its configuration


def test_nothing_else_is_replaced_by_a_model(trained: Path, tmp_path: Path) -> None:
    """Neither a run, nor a model of another kind, nor what lies in any folder; an older one of its kind is."""
    before = {path.name: path.read_bytes() for path in trained.iterdir() if path.is_file()}
    with pytest.raises(ModelError, match=r"config\.json is of something else and would be replaced"):
        exporting.export(trained, trained, "hub", "tokenizer")
    with pytest.raises(ModelError, match="of something else"):
        run.load(trained, "cpu").tokenizer.save_pretrained(trained)
    assert {path.name: path.read_bytes() for path in trained.iterdir() if path.is_file()} == before
    for _ in range(2):
        exporting.export(trained, tmp_path / "mine", "hub", "tokenizer")
    with pytest.raises(ModelError, match="is of Tokenizer and would be replaced by that of a Generator"):
        exporting.export(trained, tmp_path / "mine", "hub", "generator")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"holds other files, such as a\.png: export into a folder of its own"):
        exporting.export(trained, tmp_path / "images", "hub", "tokenizer")
    with pytest.raises(OSError, match=r"a\.png is a file, not a folder"):
        exporting.export(trained, tmp_path / "images" / "a.png", "hub", "tokenizer")


def test_a_saved_tokenizer_can_be_trained_on(trained: Path, tmp_path: Path, tiny) -> None:
    from dataclasses import replace

    from gear.config import Frozen

    exporting.export(trained, tmp_path / "saved", "hub", "tokenizer")
    config = replace(tiny, stage=Frozen(), tokenizer=replace(tiny.tokenizer, init=str(tmp_path / "saved")), steps=1)
    run.train(config, tmp_path / "run")
    record = json.loads((tmp_path / "run" / provenance.NAME).read_text())
    assert len(record["weights"]["tokenizer.init"]) == len(record["weights"]["efficientnet_lite0"]) == 64


def test_a_generator_alone_asks_for_a_tokenizer(trained: Path, tmp_path: Path) -> None:
    exporting.export(trained, tmp_path / "generator", "hub", "generator")
    with pytest.raises(CheckpointError, match="holds a generator and no tokenizer: say with --tokenizer"):
        run.load(tmp_path / "generator", "cpu")


def test_a_tokenizer_that_is_none_is_said_to_be_none(trained: Path, tmp_path: Path) -> None:
    for part in ("tokenizer", "generator"):
        exporting.export(trained, tmp_path / part, "hub", part)
    with pytest.raises(
        CheckpointError, match=r"/generator, given as --tokenizer, has no tokenizer, but a generator only\.$"
    ):
        run.load(tmp_path / "generator", "cpu", tokenizer=tmp_path / "generator")
    with pytest.raises(CheckpointError, match=r"/generator, given .* only; \S+/tokenizer has no generator: swap"):
        run.load(tmp_path / "tokenizer", "cpu", tokenizer=tmp_path / "generator")


def test_a_tokenizer_alone_draws_nothing(tmp_path: Path) -> None:
    Tokenizer(*TOKENIZERS["VQGAN"]).save_pretrained(tmp_path / "mine")
    with pytest.raises(ValueError, match=r"mine holds a tokenizer and no generator: sample .* as its --tokenizer\.$"):
        inference.require_generator(run.load(tmp_path / "mine", "cpu", resolution=32))


@pytest.mark.parametrize("grid", [(24, 24), (2, 3)])
def test_a_saved_generator_is_exported_as_it_is(tmp_path: Path, grid: tuple[int, int]) -> None:
    """Without a tokenizer, whose codebook and down-sampling would tell its own."""
    config = Generator(layers=2, heads=2, width=32, tap=1, class_rotary="zero")
    first = GeneratorNet(config, codebook_size=64, classes=3, grid=grid).eval()
    torch.nn.init.normal_(first.output.weight)
    first.save_pretrained(tmp_path / "saved")
    exporting.export(tmp_path / "saved", tmp_path / "again", "hub", "generator")
    again = GeneratorNet.from_pretrained(tmp_path / "again")
    assert (again.grid, again.codebook_size) == (grid, 64)
    tokens, labels = torch.randint(64, (2, grid[0] * grid[1] - 1)), torch.tensor([0, 3])
    assert torch.equal(first(tokens, labels).logits, again(tokens, labels).logits)


def test_a_generator_that_draws_no_square_is_neither_drawn_nor_written_for_public_code(tmp_path: Path) -> None:
    """Its tensors are those of a square one."""
    config = Generator(layers=2, heads=2, width=32, tap=1, class_rotary="zero")
    GeneratorNet(config, codebook_size=32, classes=3, grid=(2, 3)).save_pretrained(tmp_path / "saved")
    Tokenizer(*TOKENIZERS["VQGAN"]).save_pretrained(tmp_path / "tokenizer")
    with pytest.raises(CheckpointError, match=r"saved draws 2 x 3 tokens, .*: use it with Generator\.from_pretrained"):
        run.load(tmp_path / "saved", "cpu", tokenizer=tmp_path / "tokenizer")
    for layout in ("gear", "llamagen"):
        with pytest.raises(ValueError, match=r"^public code draws squares of tokens, and this generator 2 x 3: "):
            exporting.export(tmp_path / "saved", tmp_path / "a.pt", layout, "generator")
    assert not (tmp_path / "a.pt").exists()
    asked = run.load(tmp_path / "saved", "cpu", tokenizer=tmp_path / "tokenizer", resolution=32)
    assert asked.generator is not None
    assert asked.generator.grid == (16, 16)


def test_a_public_generator_draws_the_pixels_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its file does not tell."""
    from gear.generator import released

    monkeypatch.setenv("GEAR_CACHE", str(tmp_path))
    monkeypatch.setitem(released.HEADS, (2, 32), 2)
    config = Generator(layers=2, heads=2, width=32, tap=1, class_rotary="zero")
    net = GeneratorNet(config, codebook_size=32, classes=3, grid=(24, 24))
    file = weights.cached(weights.find("llamagen-c2i-b-384"))
    released.write(file, net.state_dict())
    Tokenizer(*TOKENIZERS["VQGAN"]).save_pretrained(tmp_path / "tokenizer")  # of 2 px a token

    def grid(source: Path | str, resolution: int | None = None) -> tuple[int, int]:
        pair = run.load(source, "cpu", tokenizer=tmp_path / "tokenizer", resolution=resolution)
        assert pair.generator is not None
        return pair.generator.grid

    assert grid("llamagen-c2i-b-384") == (24, 24)
    assert grid("llamagen-c2i-b-384", 32) == (16, 16)
    assert grid(file, 32) == (16, 16)
    exporting.export(Path("llamagen-c2i-b-384"), tmp_path / "mine", "hub", "generator")
    assert GeneratorNet.from_pretrained(tmp_path / "mine").grid == (24, 24)
    monkeypatch.chdir(tmp_path)
    Path("llamagen-c2i-b-384").write_bytes(file.read_bytes())  # somebody's own, of that name
    assert sources.read("llamagen-c2i-b-384").grid is None


def test_a_public_generator_is_exported_for_the_pixels_that_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gear.generator import released

    monkeypatch.setitem(released.HEADS, (2, 32), 2)
    config = Generator(layers=2, heads=2, width=32, tap=1, class_rotary="zero")
    net = GeneratorNet(config, codebook_size=64, classes=3, grid=(24, 24)).eval()
    torch.nn.init.normal_(net.output.weight)
    released.write(tmp_path / "c2i.pt", net.state_dict())
    with pytest.raises(ValueError, match=r"c2i\.pt does not say .* of how many pixels: give --resolution, as 256"):
        exporting.export(tmp_path / "c2i.pt", tmp_path / "mine", "hub", "generator")
    with pytest.raises(ConfigError, match=r"data\.resolution must be a multiple of 16"):
        exporting.export(tmp_path / "c2i.pt", tmp_path / "mine", "hub", "generator", 385)
    assert not (tmp_path / "mine").exists()
    exporting.export(tmp_path / "c2i.pt", tmp_path / "mine", "hub", "generator", 384)
    again = GeneratorNet.from_pretrained(tmp_path / "mine")
    assert (again.grid, again.codebook_size) == ((24, 24), 64)
    tokens, labels = torch.randint(64, (2, 575)), torch.tensor([0, 3])
    assert torch.equal(net(tokens, labels).logits, again(tokens, labels).logits)
    exporting.export(tmp_path / "c2i.pt", tmp_path / "again.pt", "llamagen", "generator")  # whose layout has no grid
    assert released.read(tmp_path / "again.pt").codebook_size == 64


def test_what_public_code_does_not_have_is_not_exported_for_it(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no public code has a tokenizer of these sizes"):
        exporting.export(trained, tmp_path / "a.pt", "llamagen", "tokenizer")
    with pytest.raises(ValueError, match="rotates the class token by zeros"):
        exporting.export(trained, tmp_path / "a.pt", "llamagen", "generator")
    assert not list(tmp_path.iterdir())


def test_a_public_generator_is_read_with_what_it_implies(tmp_path: Path) -> None:
    from gear.generator import released

    size = SIZES["S"]
    net = GeneratorNet(size, codebook_size=24, classes=1000, grid=(4, 4))
    released.write(tmp_path / "c2i.pt", net.state_dict())
    found = sources.read(str(tmp_path / "c2i.pt"))
    g = found.config.generator
    assert (g.layers, g.heads, g.width, g.class_rotary) == (size.layers, size.heads, size.width, "zero")
    assert found.classes[0] == "n01440764"  # the tench
    assert torch.equal(found.tensors["generator.norm.weight"], net.norm.weight)


def test_a_file_of_both_is_read_as_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As GEAR's trainer leaves it: the tokenizer under "vq" and "vq_ema", the generator under "ar" and "ema"."""
    from gear.generator import released
    from gear.store import torch_file
    from gear.tokenizer.released import names

    monkeypatch.setitem(released.HEADS, (2, 32), 2)
    tokenizer = {
        name: torch.randn_like(slot.like, device="cpu") for name, slot in names.slots(FAMILIES["VQ-16"]).items()
    }
    config = Generator(layers=2, heads=2, width=32, tap=1, class_rotary="zero")
    generator = GeneratorNet(config, codebook_size=16384, classes=3, grid=(16, 16)).state_dict()
    torch.save({"vq": tokenizer, "ar": generator, "ema": generator}, tmp_path / "gear.pt")
    opened: list[Path] = []
    read = torch_file.read
    monkeypatch.setattr(torch_file, "read", lambda path: (opened.append(path), read(path))[1])
    found = sources.read(str(tmp_path / "gear.pt"))
    assert opened == [tmp_path / "gear.pt"]  # once
    assert len(found.part("tokenizer")) == len(tokenizer)
    assert torch.equal(found.part("generator")["norm.weight"], generator["norm.weight"])
    pair = run.load(tmp_path / "gear.pt", "cpu")
    assert pair.generator is not None


def test_what_is_neither_is_said_to_be_neither(tmp_path: Path) -> None:
    torch.save({"something": torch.zeros(3)}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"no known tokenizer.*Nor is it a generator"):
        sources.read(str(tmp_path / "a.pt"))
