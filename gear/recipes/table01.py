"""Table 1: class-conditional ImageNet at 256 px, long runs on frozen tokenizers.

LlamaGen-REPA's tokenizer is the warm-up's, GEAR's that of the joint run of the same size. A fresh generator is trained
on either, as section 4.1 says; the released script goes on with the joint run's (PAPER.md, M4), which would be
`--generator.init runs/gear-l --steps 3600000`. Figure 1 and the released scripts say 1.5 and 4 million steps for 300
and 800 epochs; counted in images they would be 1,501,368 and 4,003,647. The learning rate is constant, so the shorter
run can go on to the longer: `gear train runs/table01-gear-l-300/config.json --steps 4000000`.

LlamaGen's rows are its authors' numbers, by their own recipe. Known from their code: no alignment; the public VQ-16;
AdamW with betas 0.9 and 0.95, and weight decay 0.05 on matrices (here on every parameter); learning rate 1e-4 for 256
images (for XL they have also said 2e-4); weights not averaged by default; zero rotary for the class token; tokens
stored beforehand of twenty squares an image: middle, corners and mirror images, cut from squares 1.1 and 1.05 times as
large (here: ten fixed random crops and their mirror images). Not known: which weights were sampled, and the scale of
the columns with guidance, taken to be 1.5 as for the others.

The table's diffusion models (DiT, SiT, MDT, MDTv2, SiT-REPA, REPA-E) are other methods, and its first row is the
validation images themselves; none of them has a recipe.
"""

from dataclasses import replace

from gear.config import FAMILIES, Config, Frozen, Optimizer, Sampling
from gear.recipes.base import beside, joint
from gear.recipes.registry import recipe, row

EPOCHS = {300: 1_500_000, 800: 4_000_000}  # steps


def llamagen(size: str, resolution: int = 256, lam: float = 0.0) -> Config:
    """LlamaGen by its own recipe."""
    c = joint(size)
    return replace(
        c,
        stage=Frozen(lam),
        tokenizer=replace(FAMILIES["VQ-16"], init="llamagen-vq-16"),
        generator=replace(c.generator, class_rotary="zero"),
        data=replace(c.data, resolution=resolution, views=10),
        optimizer=Optimizer(beta2=0.95, weight_decay=0.05, ema=0.0),
        sampling=Sampling(),
        steps=EPOCHS[300],
    )


def repa(size: str, epochs: int) -> Config:
    return replace(beside(joint(size)), sampling=Sampling(), steps=EPOCHS[epochs])


def gear(size: str, epochs: int) -> Config:
    c = repa(size, epochs)
    return replace(c, tokenizer=replace(c.tokenizer, init=f"runs/gear-{size.lower()}"))


@recipe("beside")
def llamagen_repa_ifsq() -> Config:
    """LlamaGen-REPA-L as iFSQ first published it.

    On LlamaGen's own VQ-16 (PAPER.md, M16). Its crops are of a random scale too, 0.8 to 1, which is left out here.
    """
    c = llamagen("L", lam=2.0)
    return replace(
        c,
        data=joint("L").data,
        optimizer=replace(c.optimizer, ema=0.9999),
        sampling=replace(c.sampling, cfg_scale=2.0),
        steps=500_400,
    )


@row(1, "LlamaGen 300 111M", {1.0: (26.26, 9.21, 48.07, 0.59, 0.61), 1.5: (8.73, 7.66, 129.60, 0.75, 0.53)})
def table01_llamagen_b_300() -> Config:
    """LlamaGen-B, 300 epochs.

    Its authors' own numbers, as the paper quotes them; at what guidance is not said, and taken to be 1.5.
    """
    return llamagen("B")


@row(1, "LlamaGen-REPA 300 111M", {1.0: (20.16, 7.03, 60.66, 0.64, 0.62), 1.5: (6.00, 5.77, 144.98, 0.79, 0.53)})
def table01_llamagen_repa_b_300() -> Config:
    """LlamaGen-REPA-B, 300 epochs."""
    return repa("B", 300)


@row(1, "GEAR 300 111M", {1.0: (16.96, 5.55, 67.62, 0.67, 0.62), 1.5: (4.95, 5.08, 166.13, 0.82, 0.52)})
def table01_gear_b_300() -> Config:
    """GEAR-B, 300 epochs."""
    return gear("B", 300)


@row(1, "LlamaGen 300 343M", {1.0: (13.45, 8.32, 82.28, 0.65, 0.63), 1.5: (4.07, 8.15, 198.50, 0.80, 0.55)})
def table01_llamagen_l_300() -> Config:
    """LlamaGen-L, 300 epochs.

    Its authors' own numbers, as the paper quotes them; at what guidance is not said, and taken to be 1.5.
    """
    return llamagen("L")


@row(1, "LlamaGen-REPA 300 343M", {1.0: (12.70, 6.09, 89.16, 0.67, 0.65), 1.5: (3.15, 5.26, 208.14, 0.80, 0.57)})
def table01_llamagen_repa_l_300() -> Config:
    """LlamaGen-REPA-L, 300 epochs."""
    return repa("L", 300)


@row(1, "GEAR 300 343M", {1.0: (8.66, 5.04, 107.52, 0.71, 0.63), 1.5: (2.95, 5.40, 239.75, 0.84, 0.54)})
def table01_gear_l_300() -> Config:
    """GEAR-L, 300 epochs."""
    return gear("L", 300)


@row(1, "LlamaGen 300 775M", {1.0: (15.54, 7.04, 79.15, 0.61, 0.68), 1.5: (3.47, 5.81, 194.44, 0.76, 0.60)})
def table01_llamagen_xl_300() -> Config:
    """LlamaGen-XL, 300 epochs, 384 px.

    Its authors' own numbers, as the paper quotes them; at what guidance is not said, and taken to be 1.5.
    Sampled at 384 px and resized to 256 for evaluation.
    """
    return llamagen("XL", resolution=384)


@row(1, "LlamaGen-REPA 300 775M", {1.0: (8.20, 5.56, 115.06, 0.70, 0.65), 1.5: (2.68, 5.45, 232.15, 0.81, 0.58)})
def table01_llamagen_repa_xl_300() -> Config:
    """LlamaGen-REPA-XL, 300 epochs."""
    return repa("XL", 300)


@row(1, "GEAR 300 775M", {1.0: (6.76, 4.96, 129.00, 0.72, 0.65), 1.5: (2.52, 5.14, 262.94, 0.84, 0.55)})
def table01_gear_xl_300() -> Config:
    """GEAR-XL, 300 epochs."""
    return gear("XL", 300)


@row(1, "LlamaGen-REPA 800 111M", {1.0: (19.14, 7.52, 64.27, 0.64, 0.62), 1.5: (5.30, 5.83, 158.87, 0.79, 0.54)})
def table01_llamagen_repa_b_800() -> Config:
    """LlamaGen-REPA-B, 800 epochs."""
    return repa("B", 800)


@row(1, "GEAR 800 111M", {1.0: (14.98, 5.27, 73.63, 0.68, 0.62), 1.5: (4.35, 4.96, 180.85, 0.82, 0.52)})
def table01_gear_b_800() -> Config:
    """GEAR-B, 800 epochs."""
    return gear("B", 800)


@row(1, "LlamaGen-REPA 800 343M", {1.0: (10.44, 5.85, 100.54, 0.68, 0.65), 1.5: (2.92, 5.40, 215.99, 0.80, 0.57)})
def table01_llamagen_repa_l_800() -> Config:
    """LlamaGen-REPA-L, 800 epochs."""
    return repa("L", 800)


@row(1, "GEAR 800 343M", {1.0: (8.61, 5.07, 109.80, 0.71, 0.64), 1.5: (2.72, 5.22, 240.30, 0.83, 0.55)})
def table01_gear_l_800() -> Config:
    """GEAR-L, 800 epochs."""
    return gear("L", 800)


@row(1, "LlamaGen-REPA 800 775M", {1.0: (7.46, 5.74, 124.49, 0.71, 0.65), 1.5: (2.57, 5.36, 236.27, 0.81, 0.58)})
def table01_llamagen_repa_xl_800() -> Config:
    """LlamaGen-REPA-XL, 800 epochs."""
    return repa("XL", 800)


@row(1, "GEAR 800 775M", {1.0: (6.28, 4.99, 136.73, 0.73, 0.65), 1.5: (2.45, 5.05, 254.27, 0.83, 0.58)})
def table01_gear_xl_800() -> Config:
    """GEAR-XL, 800 epochs."""
    return gear("XL", 800)
