"""`gear sample`: images from a run or from public weights."""

from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional

CLASSES, EACH = 64, 4  # images of classes in all, and of each prompt


def sample(
    run: Positional[Path],
    /,
    n: int | None = None,
    classes: tuple[str, ...] = (),
    prompt: Annotated[tuple[tuple[str, ...], ...], tyro.conf.UseAppendAction] = (),
    prompts: Path | None = None,
    negative: str | None = None,
    cfg_scale: float | None = None,
    cfg_interval: tuple[int, int] | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    precision: Literal["float32", "bfloat16", "int8"] = "float32",
    batch: int | None = None,
    seed: int = 0,
    save: Literal["grid", "png", "npz"] = "grid",
    out: Path | None = None,
    tokenizer: str | None = None,
    resolution: int | None = None,
    resize: int | None = None,
    device: str = "auto",
    cuda_graphs: bool = False,
) -> None:
    """Generate images with the averaged generator and tokenizer of a run, or with public weights.

    Args:
        run: Run folder, checkpoint, saved model, or a generator file of LlamaGen or GEAR (then with --tokenizer).
        n: How many images: of classes in all, 64; of texts of each one, 4.
        classes: Names or numbers of the classes to draw, in turn; none: all of them, balanced.
        prompt: What to draw, of a text-to-image run: one text or several.
        prompts: A file of texts: .txt, of which every line is one; .csv, .jsonl, .json, ... with a column prompt,
            caption or text, such as GenEval's evaluation_metadata.jsonl; or a folder of .txt files, one a text, as
            DPG-Bench's. Blank lines and rows are left out.
        negative: A text that guidance leads away from, in place of no text; "" is no text.
        cfg_scale: Classifier-free guidance, u + s (c - u); 1 is none. This and the next ones by default as the run
            has them (`sampling`).
        cfg_interval: Tokens [a, b) in which guidance acts; none: all.
        temperature: Of the softmax; 0 takes the most likely token.
        top_k: Keep the k most likely tokens; 0 keeps all.
        top_p: Keep the most likely tokens that hold this mass; 1 keeps all.
        precision: Of the generator's numbers: bfloat16 and int8 are faster, and draw somewhat other images. int8 pays
            at --batch 1.
        batch: Images drawn together; by default 32 on a CPU, 128 on a GPU. Fewer images than that take as long as so
            many, so for one image give 1. Another batch rounds differently, which now and then changes an image.
        seed: The same seed gives the same images at the same batch, however many there are. Image j of prompt i has the
            number n i + j (from 0), on which its noise depends: a prompt alone draws other images than behind others.
        save: One PNG sheet, one PNG an image, or one .npz in the layout of the ADM evaluator; of texts with the text
            above its images, or in captions.jsonl. PNGs and .npz get a note beside them, OUT.json, of what drew them.
            PNGs are saved pass by pass: called again, it draws those that are missing.
        out: File (grid, npz) or folder (png); by default in the run folder.
        tokenizer: The same kinds of thing, or a name of `gear fetch`, where `run` holds a generator only.
        resolution: Pixels along a side, where public files do not say; 256 by default.
        resize: Pixels along a side that images are brought to before they are rounded, bicubic without antialias, as
            LlamaGen and the paper bring 384 and 512 px to 256 to measure them (Table 13).
        device: Where to run.
        cuda_graphs: On a CUDA GPU, record the second pass of --batch images and replay it for the later ones: the same
            images, sooner from some passes on. Of texts with --save png, which are drawn a pass at a time, nothing.
    """
    from gear import inference
    from gear.commands import prompted, sampling
    from gear.generator.recorded import require_cuda
    from gear.run import load
    from gear.text.wording import require_whole

    given = {
        "cfg_scale": cfg_scale,
        "cfg_interval": cfg_interval,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "batch": batch,
    }
    options = {name: value for name, value in given.items() if value is not None}
    if batch is not None and batch < 1:
        raise ValueError(f"batch must be at least 1; it is {batch}.")
    typed = [text for several in prompt for text in several]
    require_whole("--prompt", typed)
    require_whole("--negative", [negative or ""])
    texts = [*typed, *([caption.text for caption in prompted.texts(prompts)] if prompts else [])]
    pair = load(run, device, tokenizer=tokenizer, resolution=resolution, resize=resize)
    if cuda_graphs:
        require_cuda(pair.on)
    if inference.draws_texts(pair):
        if classes or not texts:
            inference.require_classes(pair, "leave out --classes" if texts else None)
        options |= {"precision": precision, "cuda_graphs": cuda_graphs}
        print(sampling.sample_prompts(pair, texts, EACH if n is None else n, seed, save, out, negative, **options))
        return
    if texts or negative is not None:
        inference.require_texts(pair)
    options |= {"precision": precision, "cuda_graphs": cuda_graphs}
    print(inference.sample(pair, CLASSES if n is None else n, classes, seed, save, out, **options))
