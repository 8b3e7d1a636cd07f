"""`gear evaluate geneval`: whether images show what GenEval's prompts ask for, by judges of transformers."""

import time
from pathlib import Path
from typing import Literal

from tyro.conf import Positional


def geneval(
    folder: Positional[Path],
    /,
    detector: str = "facebook/mask2former-swin-small-coco-instance",
    clip: str = "openai/clip-vit-large-patch14",
    seed: int = 0,
    prompts: Literal["short", "long"] | None = None,
    cfg_scale: float | None = None,
    out: Path | None = None,
    device: str = "auto",
) -> None:
    """Score a folder in GenEval's layout (Table 3), by GenEval's rules with Mask2Former and CLIP of transformers.

    The judge differs from the official one, so compare only numbers of this command.

    The official scorer reads the same folder. Interrupted, the same command continues.

    Args:
        folder: Has 00000/metadata.jsonl, 00000/samples/00000.png, ...
        detector: Folder or name of a Mask2Former of transformers that knows COCO's 80 objects.
        clip: Folder or name of a CLIP of transformers, which tells colours.
        seed: Of the intervals.
        prompts: Which the images were drawn from, for the tables: GenEval's own, or refined by a language model.
        cfg_scale: Of the guidance that they were drawn with, likewise.
        out: Folder for results.json and judged.jsonl, a line for each image; by default below evaluations/.
        device: Where to run.
    """
    from gear import build
    from gear.config import Config
    from gear.evaluate import geneval as rules
    from gear.evaluate import layouts, prompt_scores, results
    from gear.evaluate.clip_score import Clip
    from gear.evaluate.geneval_judge import Mask2Former, Painter
    from gear.evaluate.judged import Judged
    from gear.progress import bars
    from gear.train import distributed

    if distributed.launch().size > 1:
        raise ValueError("gear evaluate geneval judges in one process: start it without torchrun.")
    started = time.perf_counter()
    results.require_seed(seed)
    on = build.device(Config(device=device))
    images = layouts.geneval_images(folder)
    eyes, painter = Mask2Former(detector).to(on), Painter(Clip(clip).to(on))
    about = {"detector": eyes.about(), "clip": painter.clip.about()}
    about |= {"threshold": rules.THRESHOLD, "counting_threshold": rules.COUNTING, "margin": rules.MARGIN}
    out = out or Path("evaluations") / folder.resolve().name / "geneval"
    kept = Judged(out / "judged.jsonl", about)
    verdicts: dict[str, tuple[str, list[bool]]] = {}
    with bars() as bar:
        task = bar.add_task("GenEval", total=len(images), note="")
        for file, metadata in images:
            said = kept.get(file)
            if said is None or said["metadata"] != metadata:
                pixels = layouts.read(file)
                found = eyes(pixels[None].to(on))[0]
                verdict = rules.judge(
                    found, metadata, lambda name, group, pixels=pixels: painter.colours(pixels, name, group)
                )
                said = {"metadata": metadata, "correct": verdict.correct, "reasons": list(verdict.reasons)}
                kept.put(file, said)
            verdicts.setdefault(str(file.parent.parent), (metadata["tag"], []))[1].append(said["correct"])
            bar.advance(task)
    metrics = prompt_scores.of_geneval(verdicts, seed)
    warnings = prompt_scores.warnings("geneval", len(verdicts), len(images))
    weights = {
        f"{name}/{file}": of
        for name, one in ((detector, eyes), (clip, painter.clip))
        for file, of in one.about()["sha256"].items()
    }
    told = results.Results(
        protocol="geneval",
        metrics=metrics,
        source={"kind": "geneval folder", "path": str(folder), "n": len(images), "prompts": len(verdicts)},
        reference={},
        settings=about
        | {
            "seed": seed,
            "prompt_set": prompts,
            "cfg_scale": cfg_scale,
            "judge": "gear: Mask2Former and CLIP of transformers",
        },
        weights=weights,
        warnings=warnings,
        seconds=time.perf_counter() - started,
    )
    results.report(out, told)
