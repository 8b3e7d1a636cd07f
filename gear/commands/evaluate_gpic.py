"""`gear evaluate gpic`: FDD, precision, recall, density, coverage and MMD of DINOv2's features."""

import time
from pathlib import Path
from typing import Literal

from tyro.conf import Positional


def gpic(
    source: Positional[str],
    /,
    reference: str | None = None,
    prompts: Path | None = None,
    n: int = 50_000,
    seed: int = 0,
    tokenizer: str | None = None,
    cfg_scale: float | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    precision: Literal["bfloat16", "int8"] | None = None,
    negative: str | None = None,
    resolution: int | None = None,
    interpolation: Literal["bicubic", "bilinear"] = "bicubic",
    positions: Literal["hub", "timm"] = "hub",
    interval: bool | None = None,
    batch: int | None = None,
    draw_only: bool = False,
    out: Path | None = None,
    device: str = "auto",
) -> None:
    """Measure samples as GPIC does (Table 2): FDD, precision, recall, density, coverage and MMD, of DINOv2 ViT-L/14.

    Interrupted, the same command continues. Several GPUs: torchrun --nproc-per-node 8 -m -- gear evaluate gpic ...

    Args:
        source: Images: a folder, an .npz, a .zip, builtin, cifar10 or cifar10-test; or a run, which is sampled.
        reference: GPIC's test_stats.npz, or any images; needed to measure.
        prompts: The captions that a text-to-image run draws, an image each, into OUT/images: .jsonl, .json, .csv, .tsv,
            .parquet, .txt, or a folder of .txt files.
        n: How many samples; of images, at most as many, of class folders those of each in proportion.
        seed: Of the images among which neighbours are sought, of MMD's subsets, the interval, and a run's samples.
        tokenizer: For a source that holds a generator only.
        cfg_scale: Of a run's samples. This and the next three by default as the run has them.
        temperature: Of the softmax; 0 takes the most likely token.
        top_k: Keep the k most likely tokens; 0 keeps all.
        top_p: Keep the most likely tokens that hold this mass; 1 keeps all.
        precision: Of the generator's numbers, bfloat16 or int8, which are faster; by default float32.
        negative: A text that guidance leads away from, in place of no text; "" is no text.
        resolution: Pixels along a side: of public files that do not say (256); of images, to resize and crop them,
            which stay as they are by default.
        interpolation: Of that resize. The network's own, to 224 px, is always Pillow's bicubic.
        positions: How DINOv2's table of positions is resampled: as torch.hub's network does, or as timm does.
        interval: Whether FDD gets a 95 % interval; by default where n is below 10,000.
        batch: Images in one pass of the network; a divisor of 512.
        draw_only: Draw the prompts of a text-to-image run and measure nothing.
        out: Folder for results.json and the features; by default below evaluations/, or in the run.
        device: Where to run.
    """
    if reference is None and not draw_only:
        raise ValueError("give --reference, GPIC's test_stats.npz or images, to measure against.")
    from gear import build, fetch, ranks
    from gear.commands import drawing, prompted
    from gear.config import Config
    from gear.evaluate import dino, extract, images, note, results
    from gear.evaluate import gpic as protocol
    from gear.train import distributed

    started = time.perf_counter()
    results.require_seed(seed)
    prompted.require_model(source, draw_only)
    options = {
        "cfg_scale": cfg_scale,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "precision": precision,
    }
    on = distributed.own_device(build.device(Config(device=device)))
    where = {"device": str(on), "tokenizer": tokenizer, "resolution": resolution, "seed": seed}
    with distributed.joined(on):
        detector, artist = None, None
        if not draw_only:
            with distributed.first_here():
                weights = fetch.on_demand("dinov2-l")
            detector = dino.DinoDetector(weights, positions).to(on)
        if prompts is not None or negative is not None or draw_only:
            artist = prompted.opened(source, prompts, negative=negative, wanted="GPIC's captions", **where, **options)
        asked = prompted.named(prompts)[:n] if prompts is not None else []
        name = f"gpic-{len(asked)}"
        if detector is None or reference is None:
            assert artist is not None
            prompted.draw_only(artist, asked, out or artist.folder(name))
            return
        against = protocol.opened(reference, detector, resolution, interpolation)
        how = {"resolution": resolution, "interpolation": interpolation, "positions": positions}
        if artist is not None:
            home = out or artist.folder(name)
            samples = prompted.Painted(artist, asked, home / prompted.IMAGES)
            folder = out or drawing.within(home, reference, **drawing.changed_from(gpic, **how))
        else:
            given = {name: value for name, value in options.items() if value is not None}
            advice = "give --prompts FILE, of which it draws an image each"
            there = drawing.opened(source, n, interpolation=interpolation, of_texts=advice, **where, **given)
            samples = images.part(there, n)
            changed = drawing.changed_from(gpic, n=n, tokenizer=tokenizer, **how)
            folder = out or drawing.folder_of(samples, source, "gpic", reference, **changed)
        n = min(n, len(samples))
        found = extract.features(
            detector, samples, n, folder / "features", batch=batch, title="samples", count=(dino.FEATURES,)
        )
        if ranks.rank() == 0:
            measured = protocol.gpic(found, against, seed=seed, interval=interval)
            about = samples.about()
            drawn_by = note.model(about)
            told = results.Results(
                protocol="gpic",
                metrics=measured.metrics,
                source=about | {"n": n, "pixels_sha256": found.pixels},
                reference=against.about,
                settings={
                    "n": n,
                    "seed": seed,
                    "cfg_scale": about.get("cfg_scale"),
                    "interpolation": about["interpolation"],
                    "crop": about["crop"],
                    "k": protocol.K,
                    "compared": protocol.COMPARED,
                    "detector": detector.about(),
                },
                weights={"dinov2-l": detector.about()["sha256"]},
                warnings=measured.warnings,
                seconds=time.perf_counter() - started,
                model=samples.model() if isinstance(samples, drawing.Drawn | prompted.Painted) else drawn_by,
            )
            results.report(folder, told)
        distributed.together()
