"""GenEval and DPG-Bench: their prompts drawn into the official layouts, and folders in these layouts judged."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from gear import ranks
from gear.commands.prompted import IMAGES, Artist
from gear.evaluate import clip_score, dpg_judge, geneval_judge, layouts, prompt_scores
from gear.evaluate import geneval as rules
from gear.evaluate.dpg import Answers
from gear.evaluate.judged import Judged
from gear.evaluate.prompts import GenevalPrompt, PromptError, dpg_questions
from gear.evaluate.results import Model, Results
from gear.progress import bars
from gear.train import distributed

PromptSet = Literal["short", "long"]


@dataclass(frozen=True)
class Whose:
    """What is known of the images in a folder: where they come from, at which scale of guidance, of which model."""

    source: dict[str, Any]
    cfg_scale: float | None
    model: Model | None = None
    settings: dict[str, Any] = field(default_factory=dict)


def whose(artist: Artist) -> Whose:
    negative = {} if artist.negative is None else {"negative": artist.negative}
    return Whose(artist.source(), artist.options["cfg_scale"], artist.model(), negative)


class GenevalJudge:
    """By GenEval's rules with Mask2Former and CLIP of transformers. Raises `PretrainedError` where they are missing."""

    def __init__(self, detector: str, clip: str, on: torch.device):
        self.on = on
        self.eyes = geneval_judge.Mask2Former(detector).to(on)
        self.painter = geneval_judge.Painter(clip_score.Clip(clip).to(on))
        self.about = {"detector": self.eyes.about(), "clip": self.painter.clip.about()}
        self.about |= {"threshold": rules.THRESHOLD, "counting_threshold": rules.COUNTING, "margin": rules.MARGIN}
        self.weights = {
            f"{name}/{file}": of
            for name, one in ((detector, self.eyes), (clip, self.painter.clip))
            for file, of in one.about()["sha256"].items()
        }

    def __call__(self, folder: Path, out: Path, of: Whose, seed: int, prompt_set: PromptSet | None) -> Results:
        """Of a folder in GenEval's layout. What was judged is kept in OUT/judged.jsonl. seed: of the intervals."""
        started = time.perf_counter()
        images = layouts.geneval_images(folder)
        kept = Judged(out / "judged.jsonl", self.about)
        verdicts: dict[str, tuple[str, list[bool]]] = {}
        with bars() as bar:
            task = bar.add_task("GenEval", total=len(images), note="")
            for file, metadata in images:
                said = kept.get(file)
                if said is None or said["metadata"] != metadata:
                    said = self._judged(file, metadata)
                    kept.put(file, said)
                verdicts.setdefault(str(file.parent.parent), (metadata["tag"], []))[1].append(said["correct"])
                bar.advance(task)
        settings = {"seed": seed, "prompt_set": prompt_set, "cfg_scale": of.cfg_scale}
        settings["judge"] = "gear: Mask2Former and CLIP of transformers"
        return Results(
            protocol="geneval",
            metrics=prompt_scores.of_geneval(verdicts, seed),
            source={"kind": "geneval folder", "path": str(folder), **of.source}
            | {"n": len(images), "prompts": len(verdicts)},
            reference={},
            settings=self.about | settings | of.settings,
            weights=self.weights,
            warnings=prompt_scores.warnings("geneval", len(verdicts), len(images)),
            seconds=time.perf_counter() - started,
            model=of.model,
        )

    def _judged(self, file: Path, metadata: dict[str, Any]) -> dict[str, Any]:
        pixels = layouts.read(file)
        found = self.eyes(pixels[None].to(self.on))[0]
        verdict = rules.judge(found, metadata, lambda name, group: self.painter.colours(pixels, name, group))
        return {"metadata": metadata, "correct": verdict.correct, "reasons": list(verdict.reasons)}


class DpgJudge:
    """By DPG-Bench's rules with a network of transformers that answers questions, those of dpg_bench.csv. Raises
    `PromptError` and `PretrainedError`."""

    def __init__(self, questions: Path, model: str, tiles: int, batch: int, on: torch.device):
        self.questions, self.asked, self.tiles = questions, dpg_questions(questions), tiles
        self.answering = dpg_judge.opened(model, batch, on)
        self.about = {"judge": self.answering.about(), "tiles": tiles}
        self.weights = {f"{model}/{name}": digest for name, digest in self.answering.about()["sha256"].items()}

    def require(self, keys: Iterable[str]) -> None:
        """Raises `PromptError` for prompts without questions."""
        if without := sorted(set(keys) - self.asked.keys()):
            raise PromptError(
                f"{len(without)} prompts have no questions in {self.questions}, such as {without[0]}: both must be of "
                "DPG-Bench, or parts of it."
            )

    def __call__(self, folder: Path, out: Path, of: Whose, seed: int) -> Results:
        """Of a folder in DPG-Bench's layout. Otherwise as `GenevalJudge`."""
        started = time.perf_counter()
        images = layouts.dpg_images(folder, self.asked.keys())
        kept = Judged(out / "judged.jsonl", self.about)
        judged = {}
        with bars() as bar:
            task = bar.add_task("DPG-Bench", total=len(images), note="")
            for file, key in images:
                texts = [question.text for question in self.asked[key]]
                said = kept.get(file)
                if said is None or said["questions"] != texts:
                    pixels = layouts.read(file)
                    parts = [pixels] if self.tiles == 1 else list(layouts.tiles(pixels))
                    said = {"questions": texts, "answers": [self.answering.answers(part, texts) for part in parts]}
                    kept.put(file, said)
                ids = [question.id for question in self.asked[key]]
                yes = [Answers(dict(zip(ids, map(dpg_judge.is_yes, words), strict=True))) for words in said["answers"]]
                judged[key] = (self.asked[key], yes)
                bar.advance(task)
        n = self.tiles * len(images)
        settings = {"seed": seed, "cfg_scale": of.cfg_scale, "categories": "answers as they are, of all images"}
        return Results(
            protocol="dpg",
            metrics=prompt_scores.of_dpg(judged, seed),
            source={"kind": "dpg folder", "path": str(folder), **of.source} | {"n": n, "prompts": len(judged)},
            reference={"path": str(self.questions), "prompts": len(self.asked)},
            settings=self.about | settings | of.settings,
            weights=self.weights,
            warnings=prompt_scores.warnings("dpg", len(judged), n),
            seconds=time.perf_counter() - started,
            model=of.model,
        )


@dataclass(frozen=True)
class Geneval:
    """Its prompts, or what a language model made of them, and the judge; None where images are only drawn."""

    prompts: Sequence[GenevalPrompt]
    prompt_set: PromptSet
    judge: GenevalJudge | None = None

    @property
    def name(self) -> str:
        return f"geneval-{self.prompt_set}"

    def texts(self) -> list[str]:
        return [prompt.prompt for prompt in self.prompts]

    def draw(self, artist: Artist, out: Path) -> Path:
        return layouts.write_geneval(self.prompts, artist, out, about=artist.about(), batch=artist.batch)

    def measure(self, folder: Path, out: Path, of: Whose, seed: int) -> Results:
        assert self.judge is not None
        return self.judge(folder, out, of, seed, self.prompt_set)


@dataclass(frozen=True)
class Dpg:
    """Its prompts by their keys, and the judge; None where images are only drawn."""

    prompts: Mapping[str, str]
    judge: DpgJudge | None = None
    name = "dpg"

    def texts(self) -> list[str]:
        return list(self.prompts.values())

    def draw(self, artist: Artist, out: Path) -> Path:
        return layouts.write_dpg(self.prompts, artist, out, about=artist.about(), batch=artist.batch)

    def measure(self, folder: Path, out: Path, of: Whose, seed: int) -> Results:
        assert self.judge is not None
        return self.judge(folder, out, of, seed)


Benchmark = Geneval | Dpg


def drawn_and_judged(
    benchmark: Benchmark, artist: Artist, folder: Path, seed: int, out: Path | None = None
) -> Results | None:
    """Into FOLDER/images, by all ranks; judged on rank 0, None on the others and where there is no judge. out: where
    judgements are kept; None: in `folder`."""
    images = benchmark.draw(artist, folder / IMAGES)
    judging = benchmark.judge is not None and ranks.rank() == 0
    told = benchmark.measure(images, out or folder, whose(artist), seed) if judging else None
    if benchmark.judge is None and ranks.rank() == 0:
        print(images)
    distributed.together()
    return told
