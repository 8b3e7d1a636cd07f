"""`gear evaluate dpg`: how many of DPG-Bench's questions about images a judge of transformers answers yes."""

import time
from pathlib import Path
from typing import Literal

from tyro.conf import Positional


def dpg(
    folder: Positional[Path],
    /,
    questions: Path,
    judge: str = "Salesforce/blip-vqa-capfilt-large",
    tiles: Literal[1, 4] = 4,
    batch: int = 16,
    seed: int = 0,
    cfg_scale: float | None = None,
    out: Path | None = None,
    device: str = "auto",
) -> None:
    """Score a folder in DPG-Bench's layout (Table 3), by its rules with a network of transformers that answers.

    The judge differs from the official one, so compare only numbers of this command and judge.

    The official script reads the same folder. Interrupted, the same command continues.

    Args:
        folder: Has KEY.png for each prompt, a grid of four images.
        questions: dpg_bench.csv.
        judge: Folder or name of a BLIP or ViLT of transformers that answers questions, or of a vision-language model.
        tiles: 4: files are grids of 2 x 2; 1: files are single images.
        batch: Questions at a time.
        seed: Of the interval.
        cfg_scale: Of the guidance that the images were drawn with, for the tables.
        out: Folder for results.json and judged.jsonl, a line for each file; by default below evaluations/.
        device: Where to run.
    """
    from gear import build
    from gear.config import Config
    from gear.evaluate import dpg_judge, layouts, prompt_scores, prompts, results
    from gear.evaluate.dpg import Answers
    from gear.evaluate.judged import Judged
    from gear.progress import bars
    from gear.train import distributed

    if distributed.launch().size > 1:
        raise ValueError("gear evaluate dpg judges in one process: start it without torchrun.")
    started = time.perf_counter()
    results.require_seed(seed)
    on = build.device(Config(device=device))
    asked = prompts.dpg_questions(questions)
    images = layouts.dpg_images(folder, asked.keys())
    answering = dpg_judge.opened(judge, batch, on)
    about = {"judge": answering.about(), "tiles": tiles}
    out = out or Path("evaluations") / folder.resolve().name / "dpg"
    kept = Judged(out / "judged.jsonl", about)
    judged = {}
    with bars() as bar:
        task = bar.add_task("DPG-Bench", total=len(images), note="")
        for file, key in images:
            texts = [question.text for question in asked[key]]
            said = kept.get(file)
            if said is None or said["questions"] != texts:
                pixels = layouts.read(file)
                parts = [pixels] if tiles == 1 else list(layouts.tiles(pixels))
                said = {"questions": texts, "answers": [answering.answers(part, texts) for part in parts]}
                kept.put(file, said)
            ids = [question.id for question in asked[key]]
            yes = [Answers(dict(zip(ids, map(dpg_judge.is_yes, words), strict=True))) for words in said["answers"]]
            judged[key] = (asked[key], yes)
            bar.advance(task)
    metrics = prompt_scores.of_dpg(judged, seed)
    warnings = prompt_scores.warnings("dpg", len(judged), tiles * len(images))
    told = results.Results(
        protocol="dpg",
        metrics=metrics,
        source={"kind": "dpg folder", "path": str(folder), "n": tiles * len(images), "prompts": len(judged)},
        reference={"path": str(questions), "prompts": len(asked)},
        settings=about | {"seed": seed, "cfg_scale": cfg_scale, "categories": "answers as they are, of all images"},
        weights={f"{judge}/{name}": digest for name, digest in answering.about()["sha256"].items()},
        warnings=warnings,
        seconds=time.perf_counter() - started,
    )
    results.report(out, told)
