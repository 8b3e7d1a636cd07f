"""`gear evaluate coco`: FID against real images, and the CLIP score with the captions."""

import time
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional


def coco(
    images: Positional[str],
    /,
    captions: Annotated[Path | None, tyro.conf.arg(aliases=("--prompts",))] = None,
    reference: str | None = None,
    clip: str = "openai/clip-vit-base-patch32",
    n: int | None = None,
    seed: int = 0,
    cfg_scale: float | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    precision: Literal["bfloat16", "int8"] | None = None,
    negative: str | None = None,
    tokenizer: str | None = None,
    resolution: int | None = None,
    interpolation: Literal["bicubic", "bilinear"] = "bicubic",
    interval: bool | None = None,
    batch: int | None = None,
    draw_only: bool = False,
    out: Path | None = None,
    device: str = "auto",
) -> None:
    """Measure images drawn from COCO's captions (Table 3): the CLIP score, 100 cos of ViT-B/32, and FID.

    A text-to-image run draws the captions first, an image each, into OUT/images. Interrupted, the same command
    continues.

    Several GPUs: torchrun --nproc-per-node 8 -m -- gear evaluate coco ...

    Args:
        images: A folder or .zip of images named by the captions' keys, or an .npz in the captions' order; or a run,
            checkpoint or public generator, which draws the captions.
        captions: For the CLIP score, and for a run: captions_val2017.json, .json, .jsonl, .csv, .tsv, .parquet or .txt.
        reference: For FID: the real images (val2017), brought to the size of the drawn ones, or an ADM reference.
        clip: Folder or name of a CLIP of transformers.
        n: Only the first n images.
        seed: Of the images that a run draws, and of the intervals.
        cfg_scale: Of guidance, with which a run draws, or images were drawn. This and the next three by default as the
            run has them.
        temperature: Of the softmax; 0 takes the most likely token.
        top_k: Keep the k most likely tokens; 0 keeps all.
        top_p: Keep the most likely tokens that hold this mass; 1 keeps all.
        precision: Of the generator's numbers, bfloat16 or int8, which are faster; by default float32.
        negative: A text that guidance leads away from, in place of no text; "" is no text.
        tokenizer: For a source that holds a generator only.
        resolution: Pixels along a side: of public files that do not say (256); of images, to resize and crop them,
            which stay as they are by default.
        interpolation: Of the resize of images and reference.
        interval: Whether FID gets a 95 % interval; by default where n is below 10,000.
        batch: Images in one pass of the networks; a divisor of 512.
        draw_only: Draw the captions and measure nothing.
        out: Folder for results.json, features and images; by default in the run, or below evaluations/.
        device: Where to run.
    """
    if captions is None and reference is None:
        raise ValueError("give --captions for the CLIP score, --reference for FID, or both.")
    from gear import build, ranks
    from gear.commands import drawing, prompted
    from gear.config import Config
    from gear.evaluate import adm, clip_score, extract, inception, note, results
    from gear.evaluate import captions as texts
    from gear.evaluate import coco as protocol
    from gear.evaluate import images as sources
    from gear.evaluate import reference as references
    from gear.train import distributed

    started = time.perf_counter()
    results.require_seed(seed)
    prompted.require_model(images, draw_only)
    options = {
        "cfg_scale": cfg_scale,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "precision": precision,
    }
    on = distributed.own_device(build.device(Config(device=device)))
    with distributed.joined(on):
        where = {"tokenizer": tokenizer, "negative": negative, "resolution": resolution, "device": str(on)}
        drawn = captions if drawing.is_model(images) else None
        artist = prompted.opened(images, drawn, seed=seed, wanted="captions_val2017.json", **where, **options)
        judged = captions is not None and not draw_only
        eyes = clip_score.Clip(clip).to(on) if judged else None  # before anything that takes long
        if artist is not None and captions is not None:
            cfg_scale, asked = artist.options["cfg_scale"], texts.captions(captions)[:n]
            home = out or artist.folder(f"coco-{len(asked)}")
            if draw_only:
                prompted.draw_only(artist, asked, home)
                return
            samples = prompted.Painted(artist, asked, home / prompted.IMAGES)
            against = [] if reference is None else [reference]
            changed = drawing.changed_from(coco, clip=clip, interpolation=interpolation)
            folder = out or drawing.within(home, *against, **changed)
        else:
            samples = sources.opened(images, resolution, interpolation, what="samples")
            against = [str(one) for one in (captions, reference) if one is not None]
            changed = drawing.changed_from(coco, clip=clip, n=n, resolution=resolution, interpolation=interpolation)
            folder = out or drawing.folder_of(samples, images, "coco", *against, **changed)
            asked = None if captions is None else texts.captions(captions)
        n = len(samples) if n is None else min(n, len(samples))
        prompts = None if asked is None else protocol.paired(samples, asked)
        metrics: dict[str, results.Metric] = {}
        about: dict[str, Any] = {"captions": None if captions is None else str(captions)}
        settings: dict[str, Any] = {"n": n, "seed": seed}
        weights, pixels = dict[str, str](), ""
        kept = {"store": folder / "features", "batch": batch}
        if reference is not None:
            detector = inception.opened().to(on)
            with distributed.first_here():
                against = references.opened(reference, samples.resolution, interpolation)
            measured = references.measured(against, detector, seed=seed, batch=batch)
            found = extract.features(detector, samples, n, title="samples", count=("pool",), only=("pool",), **kept)
            settings["inception"], about["fid"] = detector.about(), measured.about
            weights[detector.file.name] = detector.about()["sha256"]
            if ranks.rank() == 0:
                few, pool = n < adm.FEW if interval is None else interval, found.array("pool")
                moments = found.moments("pool")
                metrics["fid"] = adm.distance("fid", pool, moments, measured.moments["pool"], few, seed)
                metrics["kid"] = adm.kernel_distance(pool, measured.compared, few, seed)
                pixels = found.pixels
        if eyes is not None and prompts is not None:
            found = extract.features(eyes, samples, n, title="CLIP", **kept)
            settings["clip"] = eyes.about()
            weights |= {f"{clip}/{name}": digest for name, digest in eyes.about()["sha256"].items()}
            if ranks.rank() == 0:
                each = protocol.scores(eyes, found.array(clip_score.FEATURES), prompts[:n])
                metrics["clip_score"] = protocol.metric(each, seed)
                pixels = found.pixels
        if ranks.rank() == 0:
            warnings = protocol.few(n, "fid" in metrics)
            of = samples.about()
            drawn_by = note.model(of)
            geometry = {name: of[name] for name in ("interpolation", "crop")}
            settings["cfg_scale"] = of.get("cfg_scale") if cfg_scale is None else cfg_scale
            told = results.Results(
                protocol="coco",
                metrics=metrics,
                source=of | {"n": n, "pixels_sha256": pixels},
                reference=about,
                settings=settings | geometry,
                weights=weights,
                warnings=warnings,
                seconds=time.perf_counter() - started,
                model=drawn_by if artist is None else artist.model(),
            )
            results.report(folder, told)
        distributed.together()
