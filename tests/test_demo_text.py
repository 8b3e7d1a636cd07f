"""`gear demo --text` end to end, at two steps an arm and with a random text encoder."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gear import demo_text
from gear.config import Config, ConfigError, Text
from gear.data import Images
from gear.data.builtin import images as emoji
from gear.demo_text import flow, judge
from gear.figures.report_text import METRICS
from gear.text import TextError


def with_encoder(monkeypatch: pytest.MonkeyPatch, encoder: str) -> None:
    """As the recipes are, but for the encoder and how much is drawn."""

    def small(recipe: flow.Contender) -> flow.Contender:
        def made() -> Config:
            config = recipe.recipe()
            return replace(config, generator=replace(config.generator, text=Text(encoder, tokens=32)), batch=4)

        made.__name__ = recipe.recipe.__name__
        return replace(recipe, recipe=made)

    monkeypatch.setattr(flow, "CONTENDERS", tuple(small(c) for c in flow.CONTENDERS))
    monkeypatch.setattr(flow, "GENERATED", 32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, reading: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        with_encoder(patch, str(reading))
        patch.setattr(flow.Judge, "__init__", few(flow.Judge.__init__))
        out = tmp_path_factory.mktemp("demo")
        flow.demo_text(out, 2, "cpu")
    return out


def few(init: Callable[..., None]) -> Callable[..., None]:
    """With 40 of the held-out images, to be quick."""

    def made(self: judge.Judge, network: Any, train: Images, held_out: Images, seed: int, generated: int) -> None:
        rows = held_out._rows(np.arange(len(held_out)) < 40)
        init(self, network, train, rows, seed, generated)

    return made


def test_the_tokenizer_is_made_first_and_both_arms_measured(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {"gear", "text-gear", "text-warmup", "report-text.html"}
    for key, init in (("text-gear", str(folder / "gear")), ("text-warmup", "builtin")):
        found = json.loads((folder / key / "measured.json").read_text())
        assert set(found["metrics"]) == {name for name, *_ in METRICS}
        assert all(np.isfinite(value) for value in found["metrics"].values())
        assert 1 <= found["metrics"]["mean_rank"] <= 40
        assert json.loads((folder / key / "config.json").read_text())["tokenizer"]["init"] == init
        with np.load(folder / key / "measured.npz") as arrays:
            assert arrays["samples"].shape == (judge.SHOWN, judge.SEEDS, 64, 64, 3)
            for i, words in enumerate(found["words"]):
                assert arrays[f"look_{i}"].shape == (len(words), 8, 8)
                assert (arrays[f"look_{i}"].sum(0) <= 1 + 1e-5).all()


def test_the_page_has_the_numbers(folder: Path) -> None:
    page = (folder / "report-text.html").read_text()
    found = json.loads((folder / "text-gear" / "measured.json").read_text())
    for text in ("GEAR", "LlamaGen-REPA", "by chance", "Next-token prediction", "Which words", "EfficientNet-Lite1"):
        assert text in page
    assert f"{found['metrics']['held_out_ntp']:#.4g}" in page
    assert "unreached" in page or "not reached" in page or "times as fast" in page or "no speed" in page
    assert page.count("data:image/") >= judge.SHOWN * (1 + 2 * judge.SEEDS)


def test_a_second_call_trains_and_measures_nothing_again(
    folder: Path, reading: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_encoder(monkeypatch, str(reading))
    monkeypatch.setattr(flow.Judge, "__init__", few(flow.Judge.__init__))
    monkeypatch.setattr(flow.Judge, "measure", lambda *_: pytest.fail("measured again"))
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*.safetensors")}
    (folder / "report-text.html").unlink()
    flow.demo_text(folder, 2, "cpu")
    assert (folder / "report-text.html").exists()
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("*.safetensors")} == before


def test_the_tokenizer_that_is_there_says_how_long_it_is_trained(folder: Path) -> None:
    assert flow.tokenizer_run(folder, 300, "cpu").steps == 2
    assert flow.complete(folder / "gear", 2)
    assert not flow.complete(folder / "gear", 3)
    assert not flow.complete(folder / "nothing", 1)


def test_what_is_missing_is_said_before_anything_is_trained(tmp_path: Path) -> None:
    """MiniLM is not in the tests' cache."""
    with pytest.raises(TextError, match="gear fetch minilm"):
        demo_text.demo_text(tmp_path / "demo", 2, "cpu")
    assert not (tmp_path / "demo").exists()


def test_another_demo_in_the_same_folder_is_refused(
    folder: Path, reading: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_encoder(monkeypatch, str(reading))
    usual = flow.text_runs

    def another(*given: Any) -> dict[str, Config]:
        return {name: replace(config, seed=1) for name, config in usual(*given).items()}

    monkeypatch.setattr(flow, "text_runs", another)
    with pytest.raises(ConfigError, match="seed: 0 -> 1"):
        flow.demo_text(folder, 2, "cpu")


# ------------------------------------------------------------------------------------------------------- the measures


def test_ranks_against_loops() -> None:
    real, a = torch.randn(9, 5) + 3, torch.randn(9, 5) + 3
    a[3] = real[3]
    a[5], real[6] = real[6], real[5]  # two real ones are alike
    mean = real.mean(0)
    found = judge.ranks_of_own(a, real)
    for i in range(9):
        cosines = [torch.cosine_similarity(a[i] - mean, real[j] - mean, dim=0).item() for j in range(9)]
        above = sum(c > cosines[i] + 1e-6 for c in cosines)
        level = sum(abs(c - cosines[i]) <= 1e-6 for c in cosines)
        assert found[i] == pytest.approx(1 + above + (level - 1) / 2)
    assert found[3] == 1


def test_chance_is_the_mean_over_all_pairings() -> None:
    images = emoji().split(0.1).held_out._rows(np.arange(235) % 20 == 0)
    found = judge.Judge.chance.fget(type("Of", (), {"held_out": images})())  # type: ignore[attr-defined]
    n = len(images)
    features = torch.randn(n, 4)
    everywhere = torch.stack([features[i].expand(n, 4) for i in range(n)])  # image i drawn for each caption
    ranks = np.array([judge.ranks_of_own(part, features) for part in everywhere])
    assert found["mean_rank"] == pytest.approx(ranks.mean())
    assert found["rank_1"] == pytest.approx(100 * (ranks == 1).mean())
    same = images.labels[:, None] == images.labels[None]
    assert found["same_group"] == pytest.approx(100 * same.mean())


def test_which_captions_are_looked_at() -> None:
    assert judge.looked(["a", "one two three", "b", "a b c d e f g h i", "x y z w"]) == [1, 4]
    assert judge.looked(["a", "b", "c"]) == [0, 1]
