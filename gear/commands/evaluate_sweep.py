"""`gear evaluate sweep`: a protocol at several scales of classifier-free guidance, and a curve of each number: ADM for
classes, GenEval and DPG-Bench for texts."""

from pathlib import Path
from typing import Literal

from tyro.conf import Positional

SCALES = (1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0)  # of classes
SCALES_OF_TEXTS = (1.0, 1.75, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 14.0, 16.0, 18.0, 20.0)  # Table 19
OF_TEXTS = "give --geneval FILE, or --dpg FOLDER and --questions FILE, in place of --reference"


def sweep(
    source: Positional[str],
    /,
    reference: str | None = None,
    geneval: Path | None = None,
    rewritten: Path | None = None,
    dpg: Path | None = None,
    questions: Path | None = None,
    scales: tuple[float, ...] = (),
    n: int = 10_000,
    n_reference: int | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    precision: Literal["bfloat16", "int8"] | None = None,
    negative: str | None = None,
    detector: str = "facebook/mask2former-swin-small-coco-instance",
    clip: str = "openai/clip-vit-large-patch14",
    judge: str = "Salesforce/blip-vqa-capfilt-large",
    seed: int = 0,
    tokenizer: str | None = None,
    resolution: int | None = None,
    resize: int | None = None,
    interpolation: Literal["bicubic", "bilinear"] = "bicubic",
    other_resolution: bool = False,
    intervals: bool | None = None,
    batch: int | None = None,
    out: Path | None = None,
    device: str = "auto",
) -> None:
    """Measure a run at several scales of guidance (Tables 14, 19): it is sampled once a scale, with the same noise.

    Of classes by the ADM protocol, which needs --reference.

    Of texts on GenEval (--geneval, and --rewritten for its long prompts) and on DPG-Bench (--dpg with --questions).

    Writes results.json with all points, a folder for each scale, figure_cfg.png and .pdf; of texts for each
    benchmark.

    `gear figure cfg RUNS...` draws several runs together.

    Interrupted, the same command continues; with other --scales it adds theirs to the curve.

    Args:
        source: A run, checkpoint or public generator.
        reference: An ADM reference, such as VIRTUAL_imagenet256_labeled.npz, or images: a folder, .zip, .npz, builtin,
            cifar10 or cifar10-test.
        geneval: GenEval's evaluation_metadata.jsonl.
        rewritten: A longer prompt for each line of it, in their order: .jsonl, or .txt, one a line.
        dpg: DPG-Bench's folder of KEY.txt.
        questions: DPG-Bench's dpg_bench.csv.
        scales: Of classifier-free guidance; 1 is none. By default those of the paper's Table 14, and 2.5 and
            3; of texts Table 19's, 1 to 20.
        n: How many samples at each, of classes; the paper's 50,000 take five times as long.
        n_reference: How many images of the reference, where it has no moments of its own; by default all. They are
            the first ones, of class folders those of each in proportion.
        temperature: Of the softmax. This and the next two by default as the run has them.
        top_k: Keep the k most likely tokens; 0 keeps all.
        top_p: Keep the most likely tokens that hold this mass; 1 keeps all.
        precision: Of the generator's numbers, bfloat16 or int8, which are faster; by default float32.
        negative: A text that guidance leads away from, in place of no text; "" is no text.
        detector: GenEval's judge, as `gear evaluate geneval` says; so is the next.
        clip: Which tells colours.
        judge: DPG-Bench's, as `gear evaluate dpg` says.
        seed: Of the samples, of KID's subsets and of the intervals.
        tokenizer: For a source that holds a generator only.
        resolution: Pixels along a side, where public files do not say; 256 by default.
        resize: Pixels along a side that samples of classes are brought to, as `gear evaluate adm` says.
        interpolation: Of the reference's resize.
        other_resolution: The reference is meant to be of another resolution than the samples.
        intervals: Whether the distances get 95 % intervals; by default where n is below 10,000.
        batch: Images in one pass of the Inception network; a divisor of 512.
        out: Folder; by default evaluations/sweep in the run.
        device: Where to run.
    """
    from gear.commands import sweeping

    asked = sweeping.Asked(geneval, rewritten, dpg, questions, detector, clip, judge)
    texts = asked.given()
    if (reference is None) == (not texts):
        raise ValueError(
            "give --reference for a run that draws classes, or --geneval, --dpg with --questions, or both for one that "
            f"draws texts; given were {', '.join([*texts, '--reference'] if texts else ['none of them'])}."
        )
    scales = scales or (SCALES_OF_TEXTS if texts else SCALES)
    wrong = [scale for scale in scales if not 0 <= scale < float("inf")]
    if len(scales) < 2 or wrong or len(set(scales)) < len(scales):
        raise ValueError(f"--scales must be two or more different numbers, 0 or above; they are {scales}.")
    given = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "precision": precision}
    options = {name: value for name, value in given.items() if value is not None}
    if reference is None:
        if resize is not None:
            raise ValueError(
                "--resize is for a run that draws classes; of texts, the benchmarks have a size of their own."
            )
        where = {"tokenizer": tokenizer, "resolution": resolution, "negative": negative}
        for folder, name in sweeping.sweep_texts(source, asked, scales, seed, out, device, **where, **options):
            _draw(folder, name)
        return
    if negative is not None:
        raise ValueError("--negative is for a run that draws texts.")
    from gear import ranks
    from gear.commands.drawing import Drawn, changed_from, named
    from gear.commands.measuring import Asked, judging
    from gear.commands.models import folder as evaluations

    adm = Asked(
        *(source, reference, n, n_reference, seed, tokenizer, resolution, resize, interpolation),
        *(other_resolution, intervals, batch, device, OF_TEXTS),
        options=options | {"cfg_scale": min(scales)},  # so that images are refused, which have none
    )
    how = {"n": n, "n_reference": n_reference, "tokenizer": tokenizer, "resolution": resolution}
    changed = changed_from(sweep, **how, interpolation=interpolation)
    with judging(adm) as measuring:
        first = measuring.samples
        assert isinstance(first, Drawn)
        drawn = first.label(but="cfg_scale")
        folder = out or evaluations(first.pair.checkpoint) / named("sweep", (reference,), drawn, **changed)
        points = []
        for scale in sorted(scales):
            samples, into = Drawn(first.pair, n, seed, **options, cfg_scale=scale), folder / f"cfg-{scale:g}"
            if ranks.rank() == 0:
                print(f"guidance {scale:g}:")
            told = measuring.measure(samples, into)
            if told is not None:
                points.append(sweeping.point(told, scale))
                sweeping.write_points(folder, told, points, scales)  # after each, so that it can be looked at
                _draw(folder, first.model().name)


def _draw(folder: Path, name: str) -> None:
    from gear.figures.paper import style, sweep
    from gear.figures.paper.found import opened

    with style.look():
        files = style.save(sweep.draw(opened((folder / "results.json",), (name,))), folder)
    print(*(f"drawn: {file}" for file in files), sep="\n")
