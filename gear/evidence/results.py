"""One file for what came of one arm with one seed: everything that RESULTS.md is made of."""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from gear.config import Config, ConfigError
from gear.config_json import plain
from gear.evidence.arms import Arm, arms, configured, generated
from gear.evidence.measuring import NEIGHBOURS, PATCHES, TAU
from gear.evidence.scales import Scale
from gear.probe.measure import finite
from gear.store.foreign import UnreadableFile
from gear.store.whole import replacing

FORMAT = "gear-evidence-1"
HERE = Path("evidence")  # in the repository: SCALE/ARM-SEED.json


@dataclass(frozen=True)
class Result:
    """
    config: of the run, as its folder has it, without those of this machine.
    measured: what `gear.evidence.measuring.measure` gave at the end; of a run that diverged or collapsed, or whose
        tokenizer's did, "failed" alone, with the name of what stopped it.
    curve: points of the cheap distances while it trained. log: lines of its log.
    seconds: of training, and of measuring. about: hardware, versions, commits of the code that began to train it and
        of that which wrote this, date.
    protocol: of `protocol`.
    """

    scale: str
    arm: str
    seed: int
    start: str | None
    config: dict[str, Any]
    measured: dict[str, Any]
    curve: list[dict[str, Any]]
    log: list[dict[str, Any]]
    seconds: dict[str, float]
    about: dict[str, str]
    protocol: str


def protocol(scale: Scale, arm: Arm, seed: int) -> str:
    """A digest of all that decides what comes of an arm but the seed and the code: its configuration and those of the
    arms that it begins with, one after the other, and how it is measured. It differs between seeds only where they are
    for different claims."""
    known, chain = arms(), [arm]
    while (start := chain[-1].start) is not None:
        chain.append(known[start])
    what = [[plain(_seedless(scale, each, seed)), each.within.__name__] for each in chain]
    counts = [asdict(scale.counts), generated(scale, arm, seed), NEIGHBOURS, PATCHES, TAU]
    return hashlib.sha256(json.dumps([what, counts], sort_keys=True).encode()).hexdigest()[:16]


def _seedless(scale: Scale, arm: Arm, seed: int) -> Config:
    """With that of seed 0, as all digests were made before seeds differed in anything else."""
    return replace(configured(scale, arm, seed), seed=configured(scale, arm, 0).seed)


def portable(config: Config) -> dict[str, Any]:
    """Without folders, which are this machine's."""
    found = plain(config)
    init = config.tokenizer.init
    found["tokenizer"]["init"] = None if init is None else Path(init).name.removesuffix(".safetensors")
    return found


def place(folder: Path, scale: Scale, arm: str, seed: int) -> Path:
    return folder / scale.name / f"{arm}-{seed}.json"


def start(folder: Path, scale: Scale, arm: str, seed: int) -> Path:
    """Of the tokenizer that other arms begin with: a checkpoint of it and its critic alone."""
    return folder / scale.name / "starts" / f"{arm}-{seed}.safetensors"


def write(path: Path, result: Result) -> None:
    """Numbers that are none are left out: null, in JSON."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps({"format": FORMAT} | finite(asdict(result)), indent=1, allow_nan=False) + "\n")


def read(path: Path) -> Result:
    """Raises `UnreadableFile`."""
    try:
        found = json.loads(path.read_text())
        if found.pop("format") != FORMAT:
            raise ValueError("it is of another format")
        return Result(**found)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UnreadableFile(
            f"{path} is no result of `gear evidence` ({error}): remove it, and run it again."
        ) from error


def require(path: Path, result: Result, scale: Scale, arm: Arm | None) -> None:
    """Raises `ConfigError` for a result of another protocol, or of an arm that there is not."""
    if arm is None or result.protocol != protocol(scale, arm, result.seed):
        raise ConfigError(
            f"{path} was made by another protocol than this version's: move it away, or use the version that made it. "
            "Results of two protocols are not mixed."
        )


def every(folder: Path, scale: Scale) -> dict[tuple[str, int], Result]:
    """By arm and seed, of `SCALE/` in `folder`."""
    found = [read(path) for path in sorted((folder / scale.name).glob("*-*.json"))]
    return {(result.arm, result.seed): result for result in found}
