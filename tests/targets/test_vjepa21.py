"""V-JEPA 2.1's code path on a random network of two blocks, in files laid out like the published ones."""

import cmath
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from gear.targets.vjepa21 import VJEPA21, Rotary

WIDTH = 48
TINY: dict[str, Any] = {"embed_dim": WIDTH, "depth": 2, "num_heads": 3}  # 16 channels a head, of which 12 are turned


def encoder(seed: int = 0) -> dict[str, Tensor]:
    """The tensors of the public source, random in every value; large enough for the attention not to be uniform."""
    shapes = {"patch_embed.proj": (WIDTH, 3, 2, 16, 16), "patch_embed_img.proj": (WIDTH, 3, 1, 16, 16)}
    for i in range(2):
        shapes |= {f"blocks.{i}.attn.qkv": (3 * WIDTH, WIDTH), f"blocks.{i}.attn.proj": (WIDTH, WIDTH)}
        shapes |= {f"blocks.{i}.mlp.fc1": (4 * WIDTH, WIDTH), f"blocks.{i}.mlp.fc2": (WIDTH, 4 * WIDTH)}
    norms = [f"norms_block.{i}" for i in range(4)] + [f"blocks.{i}.norm{j}" for i in range(2) for j in (1, 2)]
    g = torch.Generator().manual_seed(seed)
    tensors = {name: torch.randn(1, 1, WIDTH, generator=g) for name in ("img_mod_embed", "video_mod_embed")}
    for name, shape in shapes.items():
        tensors[f"{name}.weight"] = 1.5 * torch.randn(shape, generator=g) / math.sqrt(math.prod(shape[1:]))
        tensors[f"{name}.bias"] = 0.3 * torch.randn(shape[0], generator=g)
    for name in norms:
        tensors[f"{name}.weight"] = 1 + 0.3 * torch.randn(WIDTH, generator=g)
        tensors[f"{name}.bias"] = 0.3 * torch.randn(WIDTH, generator=g)
    return tensors


def write(path: Path, tensors: dict[str, Tensor]) -> Path:
    """As published: the trainer's checkpoint, whose averaged encoder is the one to use."""
    averaged, trained = ({f"module.backbone.{k}": t for k, t in e.items()} for e in (tensors, encoder(seed=1)))
    rest = {"predictor": {}, "opt": {"state": {}, "param_groups": []}, "scaler": None, "epoch": 40, "lr": 1e-6}
    torch.save({"encoder": trained, "ema_encoder": averaged, **rest}, path)
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("weights") / "vjepa2_1_vitb_dist_vitG_384.pt", encoder())


def image(*size: int) -> Tensor:
    return torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)


def turned(x: Tensor, grid: tuple[int, int]) -> Tensor:
    """x: N D, one head's queries or keys of one image. Every pair of channels is a complex number that is turned by the
    frame (0, there is one), the row or the column, a third of the channels each, rounded down to an even number."""
    (h, w), out = grid, x.clone()
    pairs = x.shape[1] // 3 // 2
    for n in range(h * w):
        row, column = divmod(n, w)
        where = (0.0, row * 15 / (h - 1) if h > 1 else 0.0, column * 15 / (w - 1) if w > 1 else 0.0)
        for axis, position in enumerate(where):
            for j in range(pairs):
                at = 2 * (axis * pairs + j)
                point = complex(x[n, at], x[n, at + 1]) * cmath.exp(1j * position / 10000 ** (j / pairs))
                out[n, at], out[n, at + 1] = point.real, point.imag
    return out


def twin(pixels: Tensor, grid: tuple[int, int], heads: int = 3, layer: int | None = None) -> Tensor:
    """The network written out in float64, for images of 16 px a token."""
    s, (h, w), each = {k: t.double() for k, t in encoder().items()}, grid, WIDTH // heads
    mean, std = torch.tensor([0.485, 0.456, 0.406]).double(), torch.tensor([0.229, 0.224, 0.225]).double()
    x = (pixels.double() / 255 - mean[:, None, None]) / std[:, None, None]

    def norm(t: Tensor, name: str) -> Tensor:
        centred = t - t.mean(-1, keepdim=True)
        flat = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        return flat * s[f"{name}.weight"] + s[f"{name}.bias"]

    def linear(t: Tensor, name: str) -> Tensor:
        return t @ s[f"{name}.weight"].flatten(1).T + s[f"{name}.bias"]

    patches = [x[:, :, 16 * i : 16 * i + 16, 16 * j : 16 * j + 16].flatten(1) for i in range(h) for j in range(w)]
    t = torch.stack([linear(patch, "patch_embed_img.proj") for patch in patches], dim=1) + s["img_mod_embed"]
    for i in range(layer or 2):
        q, k, v = linear(norm(t, f"blocks.{i}.norm1"), f"blocks.{i}.attn.qkv").split(WIDTH, dim=-1)
        out = torch.zeros_like(t)
        for b in range(len(t)):
            for part in (slice(head * each, (head + 1) * each) for head in range(heads)):
                logits = turned(q[b, :, part], grid) @ turned(k[b, :, part], grid).T / math.sqrt(each)
                weights = logits.exp() / logits.exp().sum(-1, keepdim=True)
                out[b, :, part] = weights @ v[b, :, part]
        t = t + linear(out, f"blocks.{i}.attn.proj")
        hidden = linear(norm(t, f"blocks.{i}.norm2"), f"blocks.{i}.mlp.fc1")
        t = t + linear(hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2, f"blocks.{i}.mlp.fc2")
    return norm(t, "norms_block.3") if layer is None else t


@pytest.mark.parametrize("heads", [3, 2])  # of 24 channels, all are turned
@pytest.mark.parametrize("grid", [(4, 4), (3, 5), (1, 3)])
def test_equals_the_twin(grid: tuple[int, int], heads: int, file: Path) -> None:
    architecture: dict[str, Any] = TINY | {"num_heads": heads}
    target, pixels = VJEPA21(file, **architecture), image(16 * grid[0], 16 * grid[1])
    f = target.features(pixels, grid)
    assert f.shape == (2, grid[0] * grid[1], WIDTH) == (2, grid[0] * grid[1], target.channels)
    torch.testing.assert_close(f.double(), twin(pixels, grid, heads), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layer", [1, 2])
def test_a_layer_is_read_before_the_norm(layer: int, file: Path) -> None:
    pixels = image(32, 48)
    f = VJEPA21(file, layer, **TINY).features(pixels, (2, 3))
    torch.testing.assert_close(f.double(), twin(pixels, (2, 3), layer=layer), rtol=1e-5, atol=1e-5)


def test_an_image_that_is_not_16_px_a_token_is_resized(file: Path) -> None:
    target, pixels = VJEPA21(file, **TINY), image(40, 100)
    resized = F.interpolate(pixels.float(), (32, 64), mode="bicubic", antialias=True).clamp(0, 255)
    f = target.features(pixels, (2, 4))
    torch.testing.assert_close(f.double(), twin(resized, (2, 4)), rtol=1e-5, atol=1e-5)


def test_positions_end_at_15_and_are_counted_at_256_px() -> None:
    rotary = Rotary(64)  # of both published sizes: 10 pairs for each of frame, row and column
    counted, fine = (rotary.get_embed((n, n)).view(n, n, 2, 64) for n in (16, 24))  # row, column, sine or cosine
    row, column = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    torch.testing.assert_close(counted[:, :, 0, 20], row.sin())
    torch.testing.assert_close(counted[:, :, 1, 41], column.cos())
    torch.testing.assert_close(counted[:, :, 0, 22], (row / 10000**0.1).sin())
    still = torch.cat([counted[:, :, :, :20], counted[:, :, :, 60:]], dim=-1)
    assert torch.equal(still, torch.tensor([0.0, 1.0])[:, None].expand_as(still))
    torch.testing.assert_close(fine[::23, ::23], counted[::15, ::15])


def test_what_belongs_to_videos_has_no_influence(file: Path, tmp_path: Path) -> None:
    other = {k: t + 1 for k, t in encoder().items() if k.startswith(("patch_embed.", "video", "norms_block.0"))}
    assert len(other) == 5
    pixels = image(32, 32)
    f = VJEPA21(write(tmp_path / "other.pt", encoder() | other), **TINY).features(pixels, (2, 2))
    assert torch.equal(f, VJEPA21(file, **TINY).features(pixels, (2, 2)))


@pytest.mark.parametrize("prefix", ["", "module.backbone."])
def test_reads_safetensors_of_the_entry(prefix: str, file: Path, tmp_path: Path) -> None:
    save_file({prefix + name: tensor for name, tensor in encoder().items()}, tmp_path / "model.safetensors")
    pixels = image(32, 32)
    got = VJEPA21(tmp_path / "model.safetensors", **TINY).features(pixels, (2, 2))
    assert torch.equal(got, VJEPA21(file, **TINY).features(pixels, (2, 2)))


def test_frozen(file: Path) -> None:
    target = VJEPA21(file, **TINY)
    assert not any(p.requires_grad for p in target.parameters())
    with torch.autocast("cpu", torch.bfloat16):
        f = target.features(image(32, 32), (2, 2))
    assert f.dtype == torch.float32
    assert not f.requires_grad


NEEDED = """img_mod_embed patch_embed_img.proj.weight patch_embed_img.proj.bias norms_block.3.weight
    blocks.1.attn.qkv.bias blocks.0.mlp.fc2.weight"""


@pytest.mark.parametrize("name", NEEDED.split())
def test_refuses_a_file_without_a_tensor(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / "short.pt", {k: t for k, t in encoder().items() if k != name})
    with pytest.raises(ValueError, match=rf"short\.pt does not hold the weights of vjepa2\.1-b: it lacks {name}\."):
        VJEPA21(path, **TINY)


def test_refuses_another_network(file: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"weights of vjepa2\.1-b: its blocks.* is \(48,\) and should be \(768,\)"):
        VJEPA21(file)
    with pytest.raises(ValueError, match=r"weights of vjepa2\.1-l: its blocks.* is \(48,\) and should be \(1024,\)"):
        VJEPA21(file, size="l")
    path = write(tmp_path / "long.pt", encoder() | {"pos_embed": torch.zeros(1, 576, WIDTH)})
    with pytest.raises(ValueError, match=r"pos_embed has no place here"):
        VJEPA21(path, **TINY)


def test_refuses_a_checkpoint_without_the_averaged_encoder(tmp_path: Path) -> None:
    """V-JEPA 2 and the two largest networks of 2.1 have a `target_encoder`."""
    torch.save({"encoder": encoder(), "target_encoder": encoder()}, tmp_path / "vitl.pt")
    with pytest.raises(ValueError, match=r"vitl\.pt has no .*`ema_encoder`.* but encoder, target_encoder\."):
        VJEPA21(tmp_path / "vitl.pt", **TINY)
