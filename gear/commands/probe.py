"""`gear probe`: what a tokenizer and a generator represent, against a target encoder."""

from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from gear.config import TargetName


def probe(
    run: Positional[Path],
    /,
    *,
    data: str,
    target: TargetName | None = None,
    n: int = 1000,
    k: int = 10,
    patches: int = 4096,
    tau: float = 0.1,
    seed: int = 0,
    out: Path | None = None,
    tokenizer: str | None = None,
    resolution: int | None = None,
    interpolation: Literal["bicubic", "bilinear"] = "bicubic",
    device: str = "auto",
) -> None:
    """Compare what a run represents with a vision encoder, layer by layer, and show how its codebook is used.

    By image and by patch: CKA and CKNNA. Of every image's map: Moran's I and the share of high frequencies.

    Of the tokenizer before and after quantization, and of every layer of the generator (Table 4, Figures 4 and 5).

    Writes OUT/probe.json, which `gear figure 5` and `gear table 4` read.

    Args:
        run: Run folder, checkpoint, saved model or public file; of one without a generator, the tokenizer alone.
        data: Folder, .zip or .npz of images, or cifar10-test, cifar10 or builtin.
        target: The encoder, of which the last layer is taken; by default the run's own, as the run has it.
        n: Images: of class folders each its share, the first ones of it; else the first ones.
        k: Neighbours of CKNNA.
        patches: Drawn from the patches of all images, for what is measured by patch.
        tau: Temperature of the soft usage of the codebook.
        seed: Of the patches that are drawn.
        out: Folder of probe.json; by default the run's, of an older checkpoint one below it.
        tokenizer: Where the tokenizer is, if `run` holds a generator only.
        resolution: Pixels along a side, where public files do not say; 256 by default.
        interpolation: Of the resize before the crop.
        device: Where to run.
    """
    from gear.commands import probing  # late: it imports torch, for which --help should not wait
    from gear.run import load

    asked = probing.Asked(n, k, patches, tau, seed, interpolation)
    asked.check()
    pair = load(run, device, tokenizer=tokenizer, resolution=resolution)
    print(probing.probe(pair, data, target, asked, out, tokenizer=tokenizer))
