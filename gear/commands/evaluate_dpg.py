"""`gear evaluate dpg`: how many of DPG-Bench's questions about images a judge of transformers answers yes."""

from pathlib import Path
from typing import Literal

from tyro.conf import Positional


def dpg(
    source: Positional[str],
    /,
    questions: Path | None = None,
    prompts: Path | None = None,
    judge: str = "Salesforce/blip-vqa-capfilt-large",
    tiles: Literal[1, 4] = 4,
    batch: int = 16,
    seed: int = 0,
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
    """Score a text-to-image run, or a folder in DPG-Bench's layout (Table 3), by a network that answers questions.

    The judge differs from the official one, so compare only numbers of this command and judge.

    A run draws the prompts first, into OUT/images, which the official script reads, too.

    Interrupted, the same command continues. Several GPUs draw together under torchrun; one judges.

    Args:
        source: A run, checkpoint or public generator; or a folder of KEY.png for each prompt, a grid of four images.
        questions: dpg_bench.csv.
        prompts: DPG-Bench's folder of KEY.txt, for a run.
        judge: Folder or name of a BLIP or ViLT of transformers that answers questions, or of a vision-language model.
        tiles: Of a folder, 4: files are grids of 2 x 2; 1: files are single images.
        batch: Questions at a time.
        seed: Of the images that are drawn, and of the interval.
        cfg_scale: Of guidance, with which a run draws, or a folder was drawn. This and the next three by default as the
            run has them.
        temperature: Of the softmax; 0 takes the most likely token.
        top_k: Keep the k most likely tokens; 0 keeps all.
        top_p: Keep the most likely tokens that hold this mass; 1 keeps all.
        precision: Of the generator's numbers, bfloat16 or int8, which are faster; by default float32.
        negative: A text that guidance leads away from, in place of no text; "" is no text.
        tokenizer: For a source that holds a generator only.
        resolution: Pixels along a side, where public files do not say; 256 by default.
        draw_only: Draw the images and judge nothing, for the official script.
        out: Folder for results.json, judged.jsonl, a line for each file, and images; by default in the run, or below
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
    prompted.require_alone(source, "dpg", draw_only)
    if questions is None and not draw_only:
        raise ValueError("say what to ask about the images with --questions, DPG-Bench's dpg_bench.csv.")
    on = distributed.own_device(build.device(Config(device=device)))
    options = {
        "cfg_scale": cfg_scale,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "precision": precision,
    }
    where = {"tokenizer": tokenizer, "resolution": resolution, "negative": negative}
    with distributed.joined(on):
        artist = prompted.opened(
            source, prompts, seed=seed, device=str(on), wanted="DPG-Bench's folder of .txt files", **where, **options
        )
        answering = None
        if questions is not None and not draw_only and ranks.rank() == 0:  # looked for before images are drawn
            answering = benchmarks.DpgJudge(questions, judge, tiles if artist is None else 4, batch, on)
        if artist is None:
            assert answering is not None
            folder = Path(source)
            changed = drawing.changed_from(dpg, judge=judge, tiles=tiles)
            out = out or models.place(folder) / drawing.named("dpg", (), **changed)
            results.report(out, answering(folder, out, benchmarks.Whose({}, cfg_scale), seed))
            return
        assert prompts is not None
        asked = files.dpg(prompts)
        artist.check(list(asked.values()))
        if answering is not None:
            answering.require(asked)
        benchmark = benchmarks.Dpg(asked, answering)
        home = out or artist.folder(benchmark.name)
        into = out or drawing.within(home, **drawing.changed_from(dpg, judge=judge))
        told = benchmarks.drawn_and_judged(benchmark, artist, home, seed, into)
        if told is not None:
            results.report(into, told)
