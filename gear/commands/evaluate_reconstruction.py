"""`gear evaluate reconstruction`: how well a tokenizer gives images back, as the paper's Table 18 has it."""

import time
from pathlib import Path
from typing import Literal

from tyro.conf import Positional


def reconstruction(
    run: Positional[str],
    /,
    data: str,
    n: int | None = None,
    interpolation: Literal["bicubic", "bilinear"] = "bicubic",
    resolution: int | None = None,
    trunk: Literal["vgg", "alex"] = "vgg",
    seed: int = 0,
    intervals: bool | None = None,
    batch: int | None = None,
    out: Path | None = None,
    device: str = "auto",
) -> None:
    """Measure a tokenizer's reconstructions (Table 18): rFID, PSNR, SSIM in both its forms, L1, LPIPS.

    Interrupted, the same command continues. Several GPUs: torchrun --nproc-per-node 8 -m -- gear evaluate
    reconstruction ...

    Args:
        run: Run folder, checkpoint, saved model, or a tokenizer file of LlamaGen, Open-MAGVIT2, IBQ or GEAR.
        data: The originals: a folder, .npz or .zip of images, or builtin, cifar10 or cifar10-test. The paper's are the
            50,000 of ImageNet's validation set.
        n: How many of them: the first ones, of class folders those of each in proportion; by default all.
        interpolation: Of the resize before the crop. The result is the original of all numbers, so they compare only at
            equal interpolation: the paper's rows are bicubic, the official ones of LFQ and IBQ bilinear.
        resolution: Pixels along a side; by default as trained, for public files 256.
        trunk: The network of LPIPS.
        seed: Of the intervals.
        intervals: Whether rFID gets a 95 % interval; by default where n is below 10,000.
        batch: Images in one pass; a divisor of 512.
        out: Folder for results.json and the features; by default in the run, or below evaluations/.
        device: Where to run.
    """
    from gear import build, ranks
    from gear.commands.drawing import changed_from
    from gear.commands.rebuilding import Beside
    from gear.config import Config
    from gear.evaluate import extract, images, inception, pairs, results
    from gear.run import load
    from gear.train import distributed

    started = time.perf_counter()
    results.require_seed(seed)
    changed = changed_from(reconstruction, n=n, resolution=resolution, trunk=trunk)
    on = distributed.own_device(build.device(Config(device=device)))
    pair = load(run, str(on), resolution=resolution)
    with distributed.joined(on):
        with distributed.first_here():  # it may prepare a data set
            originals = images.opened(data, pair.checkpoint.config.data.resolution, interpolation, what="originals")
        n = len(originals) if n is None else n
        pairs.require(n, originals.resolution)
        originals = images.part(originals, n)
        perceptual, warnings = pairs.perceptual(trunk, originals.resolution)
        detector = pairs.Compared(inception.opened(), perceptual).to(on)
        beside = Beside(pair, originals)
        folder = out or beside.folder(data, interpolation, **changed)
        count = ("original", "rebuilt")
        kept = extract.features(detector, beside, n, folder / "features", batch=batch, title="pairs", count=count)
        if ranks.rank() == 0:
            found = pairs.reconstruction(kept, detector.names, seed=seed, resamples=intervals)
            about = originals.about()
            warnings = found.warnings + warnings
            results.report(
                folder,
                results.Results(
                    protocol="reconstruction",
                    metrics=found.metrics,
                    source=beside.about() | {"n": n, "pixels_sha256": kept.pixels},
                    reference=about | {"n": n, "pixels_sha256": extract.pixels_sha256(originals, n)},
                    settings={
                        "n": n,
                        "seed": seed,
                        "interpolation": about["interpolation"],
                        "crop": about["crop"],
                        "pixels": "8 bit",
                        "detector": detector.about(),
                    },
                    weights=detector.weights(),
                    warnings=warnings,
                    seconds=time.perf_counter() - started,
                    model=beside.model(),
                ),
            )
        distributed.together()
