"""Text-to-image: Tables 2 and 3 (settings: Table 17, appendix B), and what is beside them.

Both arms train the same generator on a frozen tokenizer: LlamaGen-REPA on the warm-up's, GEAR on that of the joint run
of size XL, which is the one the released script names. One epoch of GPIC, a folder of tars with a caption to each
image; the rows of fewer steps are checkpoints of the same run, which it keeps. Table 19 samples the two long runs at
twelve scales of guidance.

The released code differs in how it feeds the caption (PAPER.md, M12): `gear train table02-gear-390k
--generator.text.rotary zero --generator.text.padding right --data.flip True`, for it also flips images under captions
that say left and right.
"""

from dataclasses import replace

from gear.config import FAMILIES, SIZES, Config, Data, Engine, Frozen, Gear, Optimizer, Sampling, Text
from gear.recipes.demos import demo
from gear.recipes.own import folder_256
from gear.recipes.registry import DEMO, GPIC, Pictured, Prompted, recipe, row

EPOCH = 390_625  # steps of 256 images for 100 million
WARMUP, JOINT = "runs/warmup-vq", "runs/gear-xl"  # whose tokenizer
OWN_BATCH = 48  # of size B with 77 tokens of text at 256 px, in 24 GB


def frozen(tokenizer: str, steps: int = EPOCH, cfg_scale: float = 1.75) -> Config:
    """LlamaGen-1B with captions, on GPIC. 1.75 is the scale of guidance in Table 2."""
    return Config(
        stage=Frozen(),
        tokenizer=replace(FAMILIES["VQ-16"], init=tokenizer),
        generator=replace(SIZES["1B"], text=Text()),
        data=Data(GPIC, prepare=False, holdout=0.0, workers=8),
        engine=Engine(compile=True),
        sampling=Sampling(cfg_scale=cfg_scale),
        steps=steps,
        keep_every=50_000,
    )


@row(
    2,
    "LlamaGen-REPA-1.0B 50k",
    {1.0: (414.8, 0.86, 0.33, 0.52, 0.59), 1.75: (279.6, 0.87, 0.46, 0.67, 0.35)},
    scores=Pictured,
)
def table02_llamagen_repa_50k() -> Config:
    """LlamaGen-REPA-1B, 50,000 steps.

    The checkpoint that table02-llamagen-repa-390k keeps after 50,000 steps is the same.
    """
    return frozen(WARMUP, 50_000)


@row(
    2,
    "GEAR-1.0B (Ours) 50k",
    {1.0: (381.6, 0.86, 0.35, 0.56, 0.55), 1.75: (256.9, 0.87, 0.50, 0.69, 0.32)},
    scores=Pictured,
)
def table02_gear_50k() -> Config:
    """GEAR-1B, 50,000 steps.

    The checkpoint that table02-gear-390k keeps after 50,000 steps is the same.
    """
    return frozen(JOINT, 50_000)


@row(
    2,
    "LlamaGen-REPA-1.0B 100k",
    {1.0: (319.2, 0.86, 0.44, 0.63, 0.44), 1.75: (198.6, 0.89, 0.61, 0.77, 0.23)},
    scores=Pictured,
)
def table02_llamagen_repa_100k() -> Config:
    """LlamaGen-REPA-1B, 100,000 steps.

    The checkpoint that table02-llamagen-repa-390k keeps after 100,000 steps is the same.
    """
    return frozen(WARMUP, 100_000)


@row(
    2,
    "GEAR-1.0B (Ours) 100k",
    {1.0: (281.3, 0.88, 0.50, 0.67, 0.38), 1.75: (177.4, 0.91, 0.65, 0.78, 0.20)},
    scores=Pictured,
)
def table02_gear_100k() -> Config:
    """GEAR-1B, 100,000 steps.

    The checkpoint that table02-gear-390k keeps after 100,000 steps is the same.
    """
    return frozen(JOINT, 100_000)


@row(
    2,
    "LlamaGen-REPA-1.0B 200k",
    {1.0: (261.4, 0.88, 0.56, 0.68, 0.34), 1.75: (153.5, 0.90, 0.72, 0.82, 0.17)},
    scores=Pictured,
)
def table02_llamagen_repa_200k() -> Config:
    """LlamaGen-REPA-1B, 200,000 steps.

    The checkpoint that table02-llamagen-repa-390k keeps after 200,000 steps is the same.
    """
    return frozen(WARMUP, 200_000)


@row(
    2,
    "GEAR-1.0B (Ours) 200k",
    {1.0: (230.0, 0.89, 0.61, 0.73, 0.30), 1.75: (138.0, 0.91, 0.75, 0.84, 0.15)},
    scores=Pictured,
)
def table02_gear_200k() -> Config:
    """GEAR-1B, 200,000 steps.

    The checkpoint that table02-gear-390k keeps after 200,000 steps is the same.
    """
    return frozen(JOINT, 200_000)


@row(
    2,
    "LlamaGen-REPA-1.0B 390k",
    {1.0: (228.9, 0.89, 0.63, 0.74, 0.30), 1.75: (127.9, 0.92, 0.78, 0.85, 0.14)},
    scores=Pictured,
)
def table02_llamagen_repa_390k() -> Config:
    """LlamaGen-REPA-1B, one epoch of GPIC."""
    return frozen(WARMUP)


@row(
    2,
    "GEAR-1.0B (Ours) 390k",
    {1.0: (200.9, 0.90, 0.66, 0.77, 0.25), 1.75: (115.3, 0.92, 0.80, 0.88, 0.12)},
    scores=Pictured,
)
def table02_gear_390k() -> Config:
    """GEAR-1B, one epoch of GPIC."""
    return frozen(JOINT)


@row(
    3,
    "LlamaGen-REPA-1.0B",
    {1.0: (0.074, 0.218, 55.386, 27.12, 30.04), 16.0: (0.272, 0.419, 70.363, 30.80, 27.99)},
    scores=Prompted,
)
def table03_llamagen_repa() -> Config:
    """LlamaGen-REPA-1B, guidance 16 for prompts.

    Of COCO the paper does not say; 16 is taken (PAPER.md, M17).
    """
    return frozen(WARMUP, cfg_scale=16.0)


@row(
    3,
    "GEAR-1.0B (Ours)",
    {1.0: (0.086, 0.227, 55.369, 27.29, 29.66), 16.0: (0.334, 0.478, 72.881, 31.39, 25.74)},
    scores=Prompted,
)
def table03_gear() -> Config:
    """GEAR-1B, guidance 16 for prompts.

    Of COCO the paper does not say; 16 is taken (PAPER.md, M17).
    """
    return frozen(JOINT, cfg_scale=16.0)


@recipe("beside")
def t2i_gear_joint() -> Config:
    """GEAR with captions, both trained together.

    What the paper leaves out: its text-to-image generators are trained on a frozen tokenizer. Otherwise as the runs of
    Table 2.
    """
    return replace(frozen(WARMUP), stage=Gear())


@recipe("own")
def folder_text_256() -> Config:
    """Your own captioned images at 256 px, one 24 GB GPU.

    A folder with a text beside each image, tars, or a CSV or JSON Lines file. GEAR's published tokenizer, frozen, and
    a generator of size B that reads 77 tokens of MiniLM. For long captions
    --generator.text.encoder qwen3-1.7b --generator.text.tokens 300 --batch 16.
    """
    return replace(
        folder_256(),
        stage=Frozen(),
        tokenizer=replace(FAMILIES["VQ-16"], init="gear-vq-16"),
        generator=replace(SIZES["B"], text=Text("minilm", tokens=77)),
        data=Data("images", workers=8),
        optimizer=Optimizer(ema=0.999),
        sampling=Sampling(cfg_scale=4.0),
        batch=OWN_BATCH,
    )


def captioned(config: Config) -> Config:
    """A run of the demo with the emoji's names in place of their classes."""
    return replace(
        config,
        generator=replace(config.generator, text=Text("minilm", tokens=32)),
        data=replace(config.data, flip=None),
        steps=600,
    )


@recipe("start")
def demo_text() -> Config:
    """Text-to-image on the built-in emoji and their names.

    On the tokenizer that GEAR made in the demo, frozen. The text encoder, MiniLM, takes 45 MB.
    """
    return replace(demo_text_repa(), tokenizer=replace(demo().tokenizer, init=DEMO))


@recipe("start")
def demo_text_repa() -> Config:
    """LlamaGen-REPA beside demo-text.

    The same, on the warm-up tokenizer.
    """
    return captioned(replace(demo(), stage=Frozen()))


@recipe("start")
def demo_text_joint() -> Config:
    """GEAR with captions on the built-in emoji.

    Tokenizer and generator together, from the warm-up tokenizer.
    """
    return captioned(demo())
