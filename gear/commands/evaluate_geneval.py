"""`gear evaluate geneval`: whether images show what GenEval's prompts ask for, by judges of transformers."""

from pathlib import Path
from typing import Literal

from tyro.conf import Positional


def geneval(
    source: Positional[str],
    /,
    prompts: Path | None = None,
    rewritten: Path | None = None,
    detector: str = "facebook/mask2former-swin-small-coco-instance",
    clip: str = "openai/clip-vit-large-patch14",
    seed: int = 0,
    prompt_set: Literal["short", "long"] | None = None,
    cfg_scale: float | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    precision: Literal["bfloat16", "int8"] | None = None,
    negative: str | None = None,
    tokenizer: str | None = None,
    resolution: int | None = None,
    draw_only: bool = False,
    out: Path | None = None,
    device: str = "auto",
) -> None:
    """Score a text-to-image run, or a folder in GenEval's layout (Table 3), by networks of transformers.

    The judge is Mask2Former and CLIP, not the official one, so compare only numbers of this command.

    A run draws the prompts first, into OUT/images, which the official scorer reads, too.

    Interrupted, the same command continues. Several GPUs draw together under torchrun; one judges.

    Args:
        source: A run, checkpoint or public generator; or a folder of 00000/metadata.jsonl, 00000/samples/00000.png, ...
        prompts: evaluation_metadata.jsonl, for a run.
        rewritten: A longer prompt for each line of it, in their order, to draw instead: .jsonl, or .txt, one a line.
        detector: Folder or name of a Mask2Former of transformers that knows COCO's 80 objects.
        clip: Folder or name of a CLIP of transformers, which tells colours.
        seed: Of the images that are drawn, and of the intervals.
        prompt_set: Which a folder's images were drawn from, for the tables: GenEval's own, or refined ones.
        cfg_scale: Of guidance, with which a run draws, or a folder was drawn. This and the next three by default as the
            run has them.
        temperature: Of the softmax; 0 takes the most likely token.
        top_k: Keep the k most likely tokens; 0 keeps all.
        top_p: Keep the most likely tokens that hold this mass; 1 keeps all.
        precision: Of the generator's numbers, bfloat16 or int8, which are faster; by default float32.
        negative: A text that guidance leads away from, in place of no text; "" is no text.
        tokenizer: For a source that holds a generator only.
        resolution: Pixels along a side, where public files do not say; 256 by default.
        draw_only: Draw the images and judge nothing, for the official scorer.
        out: Folder for results.json, judged.jsonl, a line for each image, and images; by default in the run, or below
            evaluations/.
        device: Where to run.
    """
    from gear import build, ranks
    from gear.commands import benchmarks, drawing, models, prompted
    from gear.config import Config
    from gear.evaluate import prompts as files
    from gear.evaluate import results
    from gear.train import distributed

    results.require_seed(seed)
    prompted.require_alone(source, "geneval", draw_only)
    on = distributed.own_device(build.device(Config(device=device)))
    options = {
        "cfg_scale": cfg_scale,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "precision": precision,
    }
    where = {
        "tokenizer": tokenizer,
        "resolution": resolution,
        "negative": negative,
        "wanted": "evaluation_metadata.jsonl",
    }
    with distributed.joined(on):
        artist = prompted.opened(source, prompts, seed=seed, device=str(on), **where, **options)
        if artist is None:
            judge, folder = benchmarks.GenevalJudge(detector, clip, on), Path(source)
            changed = drawing.changed_from(geneval, detector=detector, clip=clip)
            out = out or models.place(folder) / drawing.named("geneval", (), **changed)
            of = benchmarks.Whose({}, cfg_scale)
            results.report(out, judge(folder, out, of, seed, prompt_set))
            return
        assert prompts is not None
        asked = files.geneval(prompts, rewritten)
        artist.check([prompt.prompt for prompt in asked])
        judging = not draw_only and ranks.rank() == 0  # looked for before the images are drawn
        judge = benchmarks.GenevalJudge(detector, clip, on) if judging else None
        chosen = prompt_set or ("short" if rewritten is None else "long")
        benchmark = benchmarks.Geneval(asked, chosen, judge)
        home = out or artist.folder(benchmark.name)
        into = out or drawing.within(home, **drawing.changed_from(geneval, detector=detector, clip=clip))
        told = benchmarks.drawn_and_judged(benchmark, artist, home, seed, into)
        if told is not None:
            results.report(into, told)
