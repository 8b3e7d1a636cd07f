import numpy as np
import pytest
import torch
from PIL import Image

from gear.data.writing import save_grid, save_npz, save_pngs

IMAGES = torch.randint(256, (5, 3, 4, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("upscale", [1, 3])
def test_grid_places_every_pixel(tmp_path, upscale):
    save_grid(IMAGES, tmp_path / "new" / "grid.png", columns=2, upscale=upscale)
    sheet = np.array(Image.open(tmp_path / "new" / "grid.png"))
    assert sheet.shape == (3 * 4 * upscale, 2 * 6 * upscale, 3)
    for y, x in np.ndindex(sheet.shape[:2]):
        row, in_y = divmod(y // upscale, 4)
        column, in_x = divmod(x // upscale, 6)
        i = row * 2 + column
        want = IMAGES[i, :, in_y, in_x].tolist() if i < 5 else [0, 0, 0]
        assert sheet[y, x].tolist() == want


def test_pngs_come_back_bit_for_bit(tmp_path):
    assert [p.name for p in save_pngs(IMAGES, tmp_path)] == [f"{i:06d}.png" for i in range(5)]
    paths = save_pngs(IMAGES, tmp_path, image_ids=[7, 8, 9, 10, 123])
    assert paths[-1] == tmp_path / "000123.png"
    for path, image in zip(paths, IMAGES, strict=True):
        assert np.array_equal(np.array(Image.open(path)), image.permute(1, 2, 0).numpy())


def test_npz_has_the_layout_of_the_adm_evaluator(tmp_path):
    save_npz(IMAGES, tmp_path / "a.npz", labels=torch.arange(5))
    with np.load(tmp_path / "a.npz", allow_pickle=False) as f:
        assert sorted(f) == ["arr_0", "arr_1"]
        assert f["arr_0"].dtype == np.uint8
        assert np.array_equal(f["arr_0"], IMAGES.permute(0, 2, 3, 1).numpy())
        assert f["arr_1"].tolist() == list(range(5))
    save_npz(IMAGES, tmp_path / "b.npz")
    with np.load(tmp_path / "b.npz") as f:
        assert sorted(f) == ["arr_0"]


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    save_npz(IMAGES, path)
    before = path.read_bytes()

    def fail(file, *arrays):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match="disk full"):
        save_npz(IMAGES[:2], path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]
