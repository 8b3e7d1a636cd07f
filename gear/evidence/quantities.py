"""The numbers that tables and figures show: what each is called, and where in a result it stands."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from gear.evidence.results import Result

Results = Mapping[tuple[str, int], Result]  # by arm and seed
Read = Callable[[Result], Any]  # a number, or None where the result has none


@dataclass(frozen=True)
class Source:
    """
    what: the images behind a number, after how many they are; {counts} and {base} are the scale's. n: how many, of a
    result that says so.
    """

    what: str
    n: Read


@dataclass(frozen=True)
class Value:
    number: float
    n: int | None  # images behind it


@dataclass(frozen=True)
class Quantity:
    """
    name: of its column. digits: behind the point.
    of_tokenizer: it is measured once for each tokenizer: of an arm on a frozen one it is that of the arm that made it.
    unbiased: it may be compared between different numbers of images.
    """

    name: str
    digits: int
    source: Source
    read: Read
    of_tokenizer: bool = False
    unbiased: bool = False

    def values(self, results: Results, arm: str) -> dict[int, Value]:
        """By seed, of those results that have it."""
        found = {}
        for result in (result for (name, _), result in results.items() if name == arm):
            source = _made(results, result) if self.of_tokenizer else result
            number = None if source is None else self.read(source)
            if source is not None and number is not None:
                found[result.seed] = Value(float(number), self.source.n(source))
        return found


def _made(results: Results, result: Result) -> Result | None:
    """What its tokenizer was measured in; of a run that was stopped, itself, in which nothing is."""
    if "reconstruction" in result.measured or result.start is None or stopped(result):
        return result
    return results.get((result.start, result.seed))


def stopped(result: Result) -> bool:
    """Whether it diverged or collapsed: its curve and its log are there up to then, and have no end."""
    return "failed" in result.measured


def of_seeds(results: Results, seeds: Collection[int]) -> Results:
    return {(arm, seed): result for (arm, seed), result in results.items() if seed in seeds}


def measured(*path: str | int) -> Read:
    return lambda result: at(result.measured, *path)


def at(value: Any, *path: str | int) -> Any:
    """What stands there in nested dictionaries and lists; None where nothing does."""
    for key in path:
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def last(key: str) -> Read:
    """Of the curve of cheap distances; of a run that was stopped, nothing."""
    return lambda result: None if stopped(result) else at(result.curve, -1, key)


def logged(key: str) -> Read:
    """Of the log's last line; of a run that was stopped, nothing."""
    return lambda result: None if stopped(result) else at(result.log, -1, key)


def usage(result: Result) -> list[tuple[int, float]]:
    """(step, effective size) of the codes in training."""
    return [(line["step"], float(line["effective_size"])) for line in result.log if "effective_size" in line]


def _usage(choose: Callable[[list[tuple[int, float]]], float]) -> Read:
    return lambda result: choose(found) if (found := usage(result)) else None


def _least(points: list[tuple[int, float]]) -> int:
    """Its place; the first of equal ones."""
    return min(range(len(points)), key=lambda i: points[i][1])


def _alignment(result: Result) -> float | None:
    """None where the stage aligns nothing: its loss is then no measurement."""
    return None if at(result.config, "stage", "lam") == 0 else logged("align_hard")(result)


def _last_token(result: Result) -> float | None:
    last, row = (measured("prediction", name)(result) for name in ("ntp_last", "ntp_last_row"))
    return None if last is None or row is None else last - row


def _nothing(result: Result) -> None:
    return None


def tap(result: Result) -> int:
    """The block that is aligned, from 1."""
    generator = result.config["generator"]
    return generator["tap"] or max(1, generator["layers"] // 3)


_INCEPTION = "samples against {counts.reference:,} training images, in the Inception of FID"
SAMPLES = Source(_INCEPTION, measured("samples", "n"))
CHEAP = Source("samples against as many training images, in EfficientNet-Lite1", last("n"))
CHEAP_REBUILT = Source("held-out images against their reconstructions, in EfficientNet-Lite1", last("n_reconstructed"))
REBUILT = Source("test images against their reconstructions", measured("reconstruction", "n"))
REBUILT_INCEPTION = Source(f"{REBUILT.what}, in the Inception of FID", REBUILT.n)
PREDICTED = Source("test images, over the arm's own tokens", measured("prediction", "n"))
PROBED = Source("{counts.probed:,} test images", _nothing)
TRAINED = Source("images in training, over the {base.log_every} steps of a log line", _nothing)
DRAWN = Source("{counts.curve:,} samples against as many training images, in EfficientNet-Lite1", _nothing)
CAPTIONED = Source("all held-out images and their captions; what is nearest is so in EfficientNet-Lite1", _nothing)
OF_TRAINING = Source("as many training images and their captions", _nothing)

GFID = Quantity("gFID", 1, SAMPLES, measured("samples", "gfid"))
SFID = Quantity("sFID", 1, SAMPLES, measured("samples", "sfid"))
KID = Quantity("KID", 4, SAMPLES, measured("samples", "kid"), unbiased=True)
PRECISION = Quantity("precision", 3, SAMPLES, measured("samples", "precision"))
RECALL = Quantity("recall", 3, SAMPLES, measured("samples", "recall"))
CHEAP_GFID = Quantity("cheap gFID", 1, CHEAP, last("gfid"))
CHEAP_RFID = Quantity("cheap rFID", 1, CHEAP_REBUILT, last("rfid"))
RFID = Quantity("rFID", 1, REBUILT_INCEPTION, measured("reconstruction", "rfid"), of_tokenizer=True)
PSNR = Quantity("PSNR, dB", 2, REBUILT, measured("reconstruction", "psnr"), of_tokenizer=True)
LPIPS = Quantity("LPIPS", 4, REBUILT, measured("reconstruction", "lpips"), of_tokenizer=True)
NTP = Quantity("NTP, nats a token", 3, PREDICTED, measured("prediction", "ntp"))
BITS = Quantity("bits an image", 1, PREDICTED, measured("prediction", "bits"))
RATE = Quantity("rate, bits", 0, PREDICTED, measured("prediction", "rate"))
NTP_LAST = Quantity("NTP, last token", 3, PREDICTED, measured("prediction", "ntp_last"))
NTP_LAST_ROW = Quantity("NTP, others of the last row", 3, PREDICTED, measured("prediction", "ntp_last_row"))
LAST_TOKEN = Quantity("last token less the others of its row", 3, PREDICTED, _last_token)
ENTROPY = Quantity("codebook entropy, nats", 3, PROBED, measured("probe", "codebook", "natural", "entropy"))
EFFECTIVE = Quantity("effective size", 0, PROBED, measured("probe", "codebook", "natural", "effective_size"))
DEAD = Quantity("dead, share", 3, PROBED, measured("probe", "codebook", "natural", "dead"))
ALIGNMENT = Quantity("alignment loss", 3, TRAINED, _alignment)
USED_START = Quantity("effective size, start", 0, TRAINED, _usage(lambda points: points[0][1]))
USED_LEAST = Quantity("effective size, least", 0, TRAINED, _usage(lambda points: points[_least(points)][1]))
USED_LEAST_STEP = Quantity("step of the least", 0, TRAINED, _usage(lambda points: points[_least(points)][0]))
USED_AFTER = Quantity("most from there on", 0, TRAINED, _usage(lambda p: max(y for _, y in p[_least(p) :])))
USED_END = Quantity("effective size, end", 0, TRAINED, logged("effective_size"))
TEXTS = (
    Quantity("cheap gFID", 1, DRAWN, measured("texts", "gfid")),
    Quantity("own image nearest, %", 2, CAPTIONED, measured("texts", "rank_1")),
    Quantity("mean rank of it", 2, CAPTIONED, measured("texts", "mean_rank")),
    Quantity("nearest of same group, %", 1, CAPTIONED, measured("texts", "same_group")),
    Quantity("held-out NTP", 3, CAPTIONED, measured("texts", "held_out_ntp")),
    Quantity("training NTP", 3, OF_TRAINING, measured("texts", "train_ntp")),
    Quantity("PSNR, dB", 2, CAPTIONED, measured("texts", "psnr")),
)


def _probed(features: Callable[[Result, str], Any]) -> tuple[Quantity, ...]:
    """Similarity of some features to the target's, and their smoothness. features: theirs, of a block of the probe."""

    def alike(level: str, measure: str) -> Read:
        return lambda result: at(features(result, "similarity"), level, measure)

    def smooth(measure: str) -> Read:
        return lambda result: at(features(result, "spatial"), measure, "mean")

    return (
        Quantity("CKNNA, image", 3, PROBED, alike("image", "cknna")),
        Quantity("CKNNA, patch", 3, PROBED, alike("patch", "cknna")),
        Quantity("CKA, image", 3, PROBED, alike("image", "cka_unbiased")),
        Quantity("CKA, patch", 3, PROBED, alike("patch", "cka_unbiased")),
        Quantity("Moran's I", 3, PROBED, smooth("moran")),
        Quantity("high frequencies, share", 3, PROBED, smooth("fft_high")),
    )


def _layer(number: Callable[[Result], int]) -> tuple[Quantity, ...]:
    """Of a block of the generator; 0 is what enters the first."""
    return _probed(lambda result, block: at(result.measured, "probe", block, "generator", number(result)))


def _tokenizer(place: str) -> tuple[Quantity, ...]:
    return _probed(lambda result, block: at(result.measured, "probe", block, "tokenizer", place))


PRE, POST, AT_INPUT = _tokenizer("pre"), _tokenizer("post"), _layer(lambda result: 0)
AT_TAP, AT_END = _layer(tap), _layer(lambda result: result.config["generator"]["layers"])
TARGET = (
    Quantity("target's Moran's I", 3, PROBED, measured("probe", "spatial", "target", "moran", "mean")),
    Quantity("target's high frequencies, share", 3, PROBED, measured("probe", "spatial", "target", "fft_high", "mean")),
)
