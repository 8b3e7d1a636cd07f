"""`gear sample`: images from a run or from public weights."""

from pathlib import Path
from typing import Literal

from tyro.conf import Positional


def sample(
    run: Positional[Path],
    /,
    n: int = 64,
    classes: tuple[str, ...] = (),
    cfg_scale: float | None = None,
    cfg_interval: tuple[int, int] | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    save: Literal["grid", "png", "npz"] = "grid",
    out: Path | None = None,
    tokenizer: str | None = None,
    resolution: int | None = None,
    device: str = "auto",
) -> None:
    """Generate images with the averaged generator and tokenizer of a run, or with public weights.

    Args:
        run: Run folder, checkpoint, saved model, or a generator file of LlamaGen or GEAR (then with --tokenizer).
        n: How many images.
        classes: Names or numbers of the classes to draw, in turn; none: all of them, balanced.
        cfg_scale: Classifier-free guidance, u + s (c - u); 1 is none. This and the next ones by default as the run
            has them (`sampling`).
        cfg_interval: Tokens [a, b) in which guidance acts; none: all.
        temperature: Of the softmax; 0 takes the most likely token.
        top_k: Keep the k most likely tokens; 0 keeps all.
        top_p: Keep the most likely tokens that hold this mass; 1 keeps all.
        seed: The same seed gives the same images, whatever the batch.
        save: One PNG sheet, one PNG an image, or one .npz in the layout of the ADM evaluator.
        out: File (grid, npz) or folder (png); by default in the run folder.
        tokenizer: The same kinds of thing, or a name of `gear fetch`, where `run` holds a generator only.
        resolution: Pixels along a side, for public files, which do not say (256).
        device: Where to run.
    """
    from gear import inference
    from gear.run import load

    given = {
        "cfg_scale": cfg_scale,
        "cfg_interval": cfg_interval,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
    }
    options = {name: value for name, value in given.items() if value is not None}
    pair = load(run, device, tokenizer=tokenizer, resolution=resolution)
    print(inference.sample(pair, n, classes, seed, save, out, **options))
