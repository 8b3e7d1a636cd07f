"""Each figure holds the numbers of the files, says what it lacks, and is the same file each time."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from gear.figures.paper import convergence, depth, dynamics, style, sweep, usage
from gear.figures.paper.found import NothingToDraw, Run, opened
from gear.figures.paper.style import Drawing

pytestmark = pytest.mark.usefixtures("drawn")

KINDS: dict[str, Callable[[list[Run]], Drawing]] = {
    "1": convergence.draw, "3": dynamics.draw, "4": usage.draw, "5": depth.draw, "cfg": sweep.draw
}  # fmt: skip


def pair(runs: Path) -> list[Run]:
    return opened([runs / "gear-l", runs / "llamagen-repa-l"])


def line(axes: Axes, label: str) -> list[list[float]]:
    (found,) = [drawn for drawn in axes.get_lines() if drawn.get_label() == label]
    return np.asarray(found.get_xydata()).tolist()


def texts(axes: Axes) -> str:
    return " ".join(text.get_text() for text in axes.texts)


def titles(figure: Figure) -> list[str]:
    return [axes.get_title("left") for axes in figure.axes]


def test_figure_3_has_raw_and_smoothed_losses(runs: Path) -> None:
    drawing = dynamics.draw(pair(runs))
    assert titles(drawing.figure) == ["(a) Next-token prediction loss ↓", "(b) Alignment loss ↓"]
    for axes, key in zip(drawing.figure.axes, ("ntp", "align_hard"), strict=True):
        raw, smooth = axes.get_lines()[:2]
        curve = pair(runs)[0].curve(key)
        assert np.asarray(raw.get_xydata()).tolist() == [list(point) for point in curve]
        np.testing.assert_allclose(np.asarray(smooth.get_ydata(), float), [y for _, y in curve], atol=2e-3)
        assert raw.get_alpha() == pytest.approx(0.22)
    assert re.findall(r"([\d.]+)x\.", drawing.caption) == ["4.0", "4.0"]  # a quarter of the steps, in both
    assert "20 steps to either side (2 % of the longest run)" in drawing.caption


def test_a_run_without_alignment_is_not_in_its_panel(runs: Path) -> None:
    """Its log has zeros there."""
    file = runs / "llamagen-repa-l" / "log.jsonl"
    file.write_text(re.sub(r'"align_hard": [-\d.e]+', '"align_hard": 0.0', file.read_text()))
    right = dynamics.draw(pair(runs)).figure.axes[1]
    assert [drawn.get_label() for drawn in right.get_lines()] == ["_raw", "gear-l"]


def test_figure_4_has_five_panels_and_the_warm_up(runs: Path) -> None:
    drawing = usage.draw(opened([runs / "gear-l", runs / "warmup-vq"]))
    *panels, legend = drawing.figure.axes
    assert titles(drawing.figure)[:2] == ["(a) Top-1 mass", "(b) Top-10 mass"]
    for axes, level in zip(panels[:3], (0.01, 0.05, 0.2), strict=True):
        assert {y for _, y in line(axes, "warm-up tokenizer")} == {level}
    assert not [drawn for ax in panels[3:] for drawn in ax.get_lines() if drawn.get_label() == "warm-up tokenizer"]
    assert any(
        "no level of usage entropy, nats, effective size exp(h): `gear train" in text for text in drawing.lacking
    )
    assert line(panels[0], "gear-l") == [[1000.0, 0.01]]  # of the probe, as the log has none
    assert line(panels[3], "gear-l") == [list(point) for point in pair(runs)[0].curve("codebook_entropy")]
    assert line(panels[3], "_probe") == [[1000.0, 8.0]]
    assert not panels[3].get_lines()[1].get_clip_on()  # whole at the right edge
    box = legend.get_legend()
    assert box is not None
    assert [text.get_text() for text in box.get_texts()] == ["gear-l", "warm-up tokenizer", "probe of a checkpoint"]
    low, high = panels[0].get_ylim()  # around its one value
    assert low == pytest.approx(0.009)
    assert high == pytest.approx(0.011)
    assert "over 50,000 images" in drawing.caption


def test_the_warm_ups_level_is_measured_as_the_curves_are(runs: Path) -> None:
    lines = [json.dumps({"step": s, "codebook_entropy": 7.0 + s / 100}) + "\n" for s in (10, 20)]
    (runs / "warmup-vq" / "log.jsonl").write_text("".join(lines))
    for name in ("gear-l", "warmup-vq"):
        file = runs / name / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"batch": 64}))
    drawing = usage.draw(opened([runs / "gear-l", runs / "warmup-vq"]))
    assert {y for _, y in line(drawing.figure.axes[3], "warm-up tokenizer")} == {7.2}
    assert {y for _, y in line(drawing.figure.axes[0], "warm-up tokenizer")} == {0.01}
    assert "each point the steps since the one before, over 640 images" in drawing.caption


def test_figure_4_says_which_command_makes_what_is_not_logged(runs: Path) -> None:
    (runs / "gear-l" / "probe" / "probe.json").unlink()
    drawing = usage.draw(opened([runs / "gear-l"]))
    assert titles(drawing.figure)[:2] == ["(a) Usage entropy, nats", "(b) Effective size exp(H)"]
    (said,) = drawing.lacking
    assert re.search(r"no top-1 mass, top-10 mass, top-100 mass in its log: `gear probe .*gear-l", said)


def test_figure_5_has_six_panels_with_bands_target_and_tap(runs: Path) -> None:
    drawing = depth.draw(pair(runs))
    axes = drawing.figure.axes
    assert [title[4:] for title in titles(drawing.figure)] == [name for *_, name in depth.PANELS]
    assert line(axes[1], "gear-l") == [[i, i / 100] for i in range(13)]
    assert line(axes[4], "gear-l") == [[i, 2 * i / 50] for i in range(13)]
    assert line(axes[4], "llamagen-repa-l") == [[i, i / 50] for i in range(13)]
    assert [len(ax.collections) for ax in axes] == [0, 0, 2, 0, 0, 2]  # bands of one standard deviation
    band = axes[2].collections[0].get_paths()[0].vertices
    assert sorted({round(float(y), 6) for x, y in np.asarray(band) if x == 0}) == [0.05, 0.15]
    (level,) = [ax for ax in axes[2].get_lines() if str(ax.get_label()).startswith("the target itself")]
    assert set(np.asarray(level.get_ydata()).tolist()) == {0.7}
    spans = [patch for ax in axes for patch in ax.patches if isinstance(patch, Rectangle)]
    assert [round(span.get_x() + span.get_width() / 2, 6) for span in spans] == [4.0] * 6  # a third of 12 layers
    assert "k = 10. Over 50,000 images." in drawing.caption
    file = runs / "gear-l/probe/probe.json"
    file.write_text(file.read_text().replace('"n": 50000', '"n": 200'))
    assert "do not compare: 200 (gear-l), 50,000 (llamagen-repa-l)." in depth.draw(pair(runs)).caption


def test_figure_5_takes_the_latest_probe(runs: Path) -> None:
    whole = json.loads((runs / "gear-l/probe/probe.json").read_text())
    whole["model"]["steps"], whole["similarity"]["generator"] = 500, whole["similarity"]["generator"][:3]
    (runs / "gear-l" / "a-probe").mkdir()
    (runs / "gear-l" / "a-probe" / "probe.json").write_text(json.dumps(whole))
    assert len(line(depth.draw(pair(runs)).figure.axes[0], "gear-l")) == 13


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_without_any_of_it_is_told_the_command(kind: str, runs: Path) -> None:
    bare = runs / "bare"
    bare.mkdir()
    (bare / "log.jsonl").write_text('{"step": 1, "x": 1.0}\n')
    (bare / "config.json").write_text('{"steps": 5}')
    with pytest.raises(NothingToDraw, match=r"bare has no .*: `gear (train \S+/config\.json|evaluate|probe)"):
        KINDS[kind](opened([bare]))


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - {"4"}))
def test_a_warm_up_is_not_told_to_train_a_generator(kind: str, runs: Path) -> None:
    with pytest.raises(NothingToDraw, match=r"^warmup-vq is a warm-up: it trains no generator\.$"):
        KINDS[kind](opened([runs / "warmup-vq"]))


@pytest.mark.parametrize("kind", KINDS)
def test_names_of_any_length_and_letters_leave_the_figure_whole(kind: str, runs: Path, tmp_path: Path) -> None:
    """pytest makes an error of the warning that a letter is missing, or that axes have collapsed."""
    names = ["a" * 50 + "-1", "a" * 50 + "-2", "実験", "gear"]
    paths = []
    for i, name in enumerate(names):
        shutil.copytree(runs / ("gear-l", "llamagen-repa-l")[i % 2], tmp_path / "long" / name)
        paths.append(tmp_path / "long" / name)
    drawing = KINDS[kind](opened(paths))
    style.save(drawing, tmp_path)
    shown = [text.get_text() for axes in drawing.figure.axes for text in axes.texts]
    for legend in [*drawing.figure.legends, *(axes.get_legend() for axes in drawing.figure.axes)]:
        shown += [text.get_text() for text in legend.get_texts()] if legend else []
    assert all(name not in text for name in names[:3] for text in shown)
    assert "?? is 実験" in drawing.caption
    for name in names[:2]:
        assert "a…aaa" in drawing.caption
        assert f" is {name}" in drawing.caption
    for axes in drawing.figure.axes:
        assert axes.get_window_extent().height > 100


@pytest.mark.parametrize("kind", KINDS)
def test_files_are_the_same_each_time(kind: str, runs: Path, tmp_path: Path) -> None:
    files = [style.save(KINDS[kind](pair(runs)), tmp_path / name) for name in ("a", "b")]
    for first, second in zip(*files, strict=True):
        assert first.read_bytes() == second.read_bytes()
    pdf, png, text = files[0]
    assert [f.suffix for f in files[0]] == [".pdf", ".png", ".txt"]
    assert png.read_bytes().startswith(b"\x89PNG")
    assert text.read_text().strip()
    assert not re.search(rb"CreationDate|ModDate|/Type3", pdf.read_bytes())
    assert b"/FontFile2" in pdf.read_bytes()  # TrueType, embedded


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_cut_off_or_covers_a_title(kind: str, runs: Path, tmp_path: Path) -> None:
    figure = KINDS[kind](pair(runs)).figure
    figure.savefig(tmp_path / "x.png")
    width, height = figure.get_size_inches() * figure.dpi
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    for box in boxes:
        assert box is not None
        assert -1 < box.x0 < box.x1 < width + 1
        assert -1 < box.y0 < box.y1 < height + 1
    for legend in figure.legends:
        assert not any(legend.get_window_extent().overlaps(box) for box in boxes if box)


def test_runs_differ_without_colour() -> None:
    looks = [style.marked(i, 100) for i in range(6)]
    assert len({(str(look["linestyle"]), look["marker"]) for look in looks}) == 6
    assert len({look["color"] for look in looks}) == 6
