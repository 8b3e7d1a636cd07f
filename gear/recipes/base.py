"""The runs that all tables vary: warm-ups (Table 18), GEAR-B, -L, -XL and the baselines beside them (Table 9).

Tables 15 and 16 are the schema's defaults, with section 4.1's data. What the paper leaves open is decided here:

- Warm-ups (PAPER.md, M3) take 400,000 steps, as in the released script, whose file names the joint run's script then
  asks for; the paper calls them brief. They start from the public tokenizers, which have no critic.
- Images: the short side to 256 px by bicubic interpolation, then a fresh random crop, flipped half of the time, as the
  released loader has it. No image is held out: the validation set is another folder.
- Where a table has one set of columns it is without guidance, so `sampling.cfg_scale` is 1 (section 4.1).
- Table 16 has torch.compile on. Here it is off: one compilation takes minutes, and numbers do not depend on it;
  `--engine.compile`.
- The released code differs in the weight of LPIPS and in the class token's rotary embedding (PAPER.md, M1 and M12):
  `gear train gear-l --tokenizer.loss.perceptual 1.0 --generator.class-rotary zero`.
"""

from dataclasses import replace

from gear.config import FAMILIES, SIZES, Config, Data, Frozen, Sampling, Warmup
from gear.recipes.registry import IMAGENET, row

REPA_L = {1.0: (14.719, 6.009, 77.333, 0.670, 0.640)}  # a row of Tables 8, 9 and 12
GEAR_L = {1.0: (10.630, 5.111, 92.700, 0.701, 0.630)}  # of Tables 5 to 9, 12 and 14
REBUILT_WARM = (21.061, 0.565, 1.724)  # by the VQ-16 of the warm-up, under every baseline
REBUILT_L = (20.779, 0.558, 1.640)


def joint(size: str, family: str = "VQ-16") -> Config:
    """GEAR from a family's warm-up, as Tables 15 and 16 have it."""
    warmup = f"runs/warmup-{family.removesuffix('-16').lower()}"
    return Config(
        tokenizer=replace(FAMILIES[family], init=warmup),
        generator=SIZES[size],
        data=Data(IMAGENET, crop="random", classes="imagenet", holdout=0.0, workers=8),
        sampling=Sampling(cfg_scale=1.0),
    )


def beside(gear: Config) -> Config:
    """LlamaGen-REPA: `gear` on its tokenizer as it is, which stays frozen."""
    return replace(gear, stage=Frozen())


def warmup(family: str, public: str) -> Config:
    """The tokenizer alone, from the file that is public."""
    return replace(joint("L", family), stage=Warmup(), tokenizer=replace(FAMILIES[family], init=public))


@row(18, "VQ-16 Warm-up", {}, (21.06, 0.57, 1.72))
def warmup_vq() -> Config:
    """Warm-up of LlamaGen's VQ-16."""
    return warmup("VQ-16", "llamagen-vq-16")


@row(18, "LFQ-16 Warm-up", {}, (20.97, 0.56, 2.42))
def warmup_lfq() -> Config:
    """Warm-up of Open-MAGVIT2's LFQ-16."""
    return warmup("LFQ-16", "open-magvit2-lfq-16")


@row(18, "IBQ-16 Warm-up", {}, (21.18, 0.58, 1.97))
def warmup_ibq() -> Config:
    """Warm-up of IBQ-16."""
    return warmup("IBQ-16", "ibq-16")


@row(9, "LlamaGen-REPA-B", {1.0: (24.986, 6.762, 49.086, 0.620, 0.614)}, REBUILT_WARM)
def llamagen_repa_b() -> Config:
    """LlamaGen-REPA-B."""
    return beside(gear_b())


@row(9, "LlamaGen-REPA-B +GEAR", {1.0: (21.516, 5.420, 54.397, 0.644, 0.610)}, (20.751, 0.556, 1.658))
def gear_b() -> Config:
    """GEAR-B."""
    return joint("B")


@row(9, "LlamaGen-REPA-L", REPA_L, REBUILT_WARM)
def llamagen_repa_l() -> Config:
    """LlamaGen-REPA-L."""
    return beside(gear_l())


@row(9, "LlamaGen-REPA-L +GEAR", GEAR_L, REBUILT_L)
def gear_l() -> Config:
    """GEAR-L, the paper's default.

    The constants of the released code: --tokenizer.loss.perceptual 1.0 --generator.class-rotary zero.
    """
    return joint("L")


@row(9, "LlamaGen-REPA-XL", {1.0: (9.631, 5.556, 104.456, 0.697, 0.644)}, REBUILT_WARM)
def llamagen_repa_xl() -> Config:
    """LlamaGen-REPA-XL."""
    return beside(gear_xl())


@row(9, "LlamaGen-REPA-XL +GEAR", {1.0: (7.693, 4.934, 115.463, 0.717, 0.637)}, (20.808, 0.559, 1.624))
def gear_xl() -> Config:
    """GEAR-XL."""
    return joint("XL")
