"""`gear evaluate adm`: gFID, sFID, Inception Score, precision and recall by the ADM protocol, and KID."""

from pathlib import Path
from typing import Literal

from tyro.conf import Positional

OF_TEXTS = "ADM is of class runs, so measure this one with `gear evaluate coco` or `gpic`, and --prompts FILE"


def adm(
    source: Positional[str],
    /,
    reference: str,
    n: int = 50_000,
    n_reference: int | None = None,
    classes: tuple[str, ...] = (),
    cfg_scale: float | None = None,
    cfg_interval: tuple[int, int] | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    precision: Literal["bfloat16", "int8"] | None = None,
    seed: int = 0,
    tokenizer: str | None = None,
    resolution: int | None = None,
    resize: int | None = None,
    interpolation: Literal["bicubic", "bilinear"] = "bicubic",
    other_resolution: bool = False,
    intervals: bool | None = None,
    batch: int | None = None,
    out: Path | None = None,
    device: str = "auto",
) -> None:
    """Measure samples by the ADM protocol (Table 1): gFID, sFID, Inception Score, precision, recall; and KID.

    Interrupted, the same command continues. Several GPUs: torchrun --nproc-per-node 8 -m -- gear evaluate adm ...

    Args:
        source: A run, checkpoint or public generator, which is sampled; or images: a folder, an .npz in the layout of
            the ADM evaluator, a .zip, or builtin, cifar10 or cifar10-test.
        reference: An ADM reference, such as VIRTUAL_imagenet256_labeled.npz, or any images, as `source`.
        n: How many samples; of images, at most as many: the first ones, of class folders those of each in proportion.
        n_reference: How many images of the reference, taken likewise, where it has no moments of its own; by default
            all.
        classes: Names or numbers of the classes to draw, in turn; none: all of them, balanced.
        cfg_scale: Classifier-free guidance, 1 is none. This and the next ones by default as the run has them.
        cfg_interval: Tokens [a, b) in which guidance acts; none: all.
        temperature: Of the softmax; 0 takes the most likely token.
        top_k: Keep the k most likely tokens; 0 keeps all.
        top_p: Keep the most likely tokens that hold this mass; 1 keeps all.
        precision: Of the generator's numbers, bfloat16 or int8, which are faster; by default float32.
        seed: Of the samples, of KID's subsets and of the intervals.
        tokenizer: For a source that holds a generator only.
        resolution: Pixels along a side: of public files that do not say (256); of images, to resize and crop them.
        resize: Pixels along a side that a model's samples are brought to before they are rounded, bicubic without
            antialias, as LlamaGen and the paper bring 384 and 512 px to 256 (Table 13).
        interpolation: Of the images' resize, and of the reference's.
        other_resolution: The reference is meant to be of another resolution than the samples.
        intervals: Whether the distances get 95 % intervals; by default where n is below 10,000.
        batch: Images in one pass of the Inception network; a divisor of 512.
        out: Folder for results.json and the features; by default in the run, or below evaluations/.
        device: Where to run.
    """
    from gear.commands.drawing import changed_from, folder_of
    from gear.commands.measuring import Asked, judging

    given = {
        "cfg_scale": cfg_scale,
        "cfg_interval": cfg_interval,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "precision": precision,
        "classes": classes or None,
    }
    asked = Asked(
        *(source, reference, n, n_reference, seed, tokenizer, resolution, resize, interpolation),
        *(other_resolution, intervals, batch, device, OF_TEXTS),
        options={name: value for name, value in given.items() if value is not None},
    )
    how = {"n": n, "n_reference": n_reference, "tokenizer": tokenizer, "resolution": resolution}
    changed = changed_from(adm, **how, interpolation=interpolation)
    with judging(asked) as judge:
        judge.measure(judge.samples, out or folder_of(judge.samples, source, "adm", reference, **changed))
