"""`gear reconstruct`: images to tokens and back."""

from pathlib import Path
from typing import Literal

from tyro.conf import Positional


def reconstruct(
    run: Positional[Path],
    images: Positional[tuple[Path, ...]],
    /,
    out: Path | None = None,
    resolution: int | None = None,
    interpolation: Literal["bicubic", "bilinear"] = "bicubic",
    device: str = "auto",
) -> None:
    """Encode images to tokens and back; writes a sheet of inputs above reconstructions and prints the PSNR of each.

    Args:
        run: Run folder, checkpoint, saved model, or a tokenizer file of LlamaGen, Open-MAGVIT2, IBQ or GEAR.
        images: Image files, or folders of them.
        out: The PNG sheet; by default reconstructions.png in the run folder.
        resolution: Pixels along a side; by default as trained, for public files 256.
        interpolation: Of the resize before the crop; PSNR is against its result.
        device: Where to run.
    """
    from gear import inference
    from gear.run import load

    pair = load(run, device, resolution=resolution)
    print(inference.reconstruct(pair, images, out, interpolation))
