"""What `gear evaluate adm` and `gear evaluate sweep` share: one network and one reference, however many samples."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gear import build, ranks
from gear.commands import drawing
from gear.config import Config
from gear.data.crop import Interpolation
from gear.evaluate import extract, images, inception, note, results
from gear.evaluate import reference as references
from gear.evaluate.adm import SPLIT, K, adm
from gear.evaluate.images import ImageSource
from gear.evaluate.results import Results
from gear.train import distributed


@dataclass(frozen=True)
class Asked:
    """The arguments of the commands, of which `gear evaluate adm --help` says what they mean.

    options: of `generate`, those that were given. of_texts: what to do with a run that draws texts.
    """

    source: str
    reference: str
    n: int
    n_reference: int | None
    seed: int
    tokenizer: str | None
    resolution: int | None
    resize: int | None
    interpolation: Interpolation
    other_resolution: bool
    intervals: bool | None
    batch: int | None
    device: str
    of_texts: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Judge:
    """
    samples: what is to be measured. against: the reference, measured; filled on rank 0. On every rank.
    """

    asked: Asked
    samples: ImageSource
    detector: Any  # `FidInception`, or what has its features
    against: references.Measured

    def measure(self, samples: ImageSource, folder: Path) -> Results | None:
        """By the ADM protocol; rank 0 shows it, writes FOLDER/results.json and returns it, the others None."""
        started, a, detector, n = time.perf_counter(), self.asked, self.detector, min(self.asked.n, len(samples))
        kept = extract.features(
            detector, samples, n, folder / "features", batch=a.batch, title="samples", count=("pool", "spatial")
        )
        told = None
        if ranks.rank() == 0:
            found = adm(kept, self.against, seed=a.seed, resamples=a.intervals)
            about = samples.about()
            drawn_by = note.model(about)  # of images that `gear sample` saved
            told = Results(
                protocol="adm",
                metrics=found.metrics,
                source=about | {"n": n, "pixels_sha256": kept.pixels},
                reference=self.against.about,
                settings={
                    "n": n,
                    "seed": a.seed,
                    "cfg_scale": about.get("cfg_scale"),
                    "interpolation": about["interpolation"],
                    "crop": about["crop"],
                    "k": K,
                    "inception_score_split": SPLIT,
                    "detector": detector.about(),
                },
                weights={detector.file.name: detector.about()["sha256"]},
                warnings=found.warnings,
                seconds=time.perf_counter() - started,
                model=samples.model() if isinstance(samples, drawing.Drawn) else drawn_by,
            )
            results.report(folder, told)
        distributed.together()
        return told


@contextmanager
def judging(asked: Asked) -> Iterator[Judge]:
    """Within the block the ranks are joined. Network and reference are read and found right before anything is drawn.

    Raises what `drawing.opened` and `reference.opened` raise, and `gear.weights.MissingWeight`.
    """
    results.require_seed(asked.seed)
    on = distributed.own_device(build.device(Config(device=asked.device)))
    where = {"tokenizer": asked.tokenizer, "resolution": asked.resolution, "resize": asked.resize}
    where |= {"interpolation": asked.interpolation, "device": str(on), "of_texts": asked.of_texts}
    with distributed.joined(on):
        detector = inception.opened().to(on)
        with distributed.first_here():  # a data set may have to be prepared
            there = drawing.opened(asked.source, asked.n, seed=asked.seed, **where, **asked.options)
            samples = images.part(there, asked.n)
            against = references.opened(
                asked.reference,
                samples.resolution,
                asked.interpolation,
                n=asked.n_reference,
                other_resolution=asked.other_resolution,
            )
        measured = references.measured(against, detector, seed=asked.seed, batch=asked.batch)
        yield Judge(asked, samples, detector, measured)
