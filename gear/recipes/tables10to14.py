"""Tables 10 to 14: target, depth, initialisation, resolution and guidance, around GEAR-L and its baseline.

Both arms of Tables 10, 11 and 13 take 100,000 steps; the baselines are aligned to the target and at the depth of their
row. The warm-up tokenizer is the one of 256 px at every resolution: the released scripts know no other. Only SigLIP 2's
and V-JEPA 2.1's features are normalised over positions (appendix A). Table 13 samples at the resolution of training,
with guidance 1.5 or without; for FID the images are resized to 256 px.
"""

from dataclasses import replace

from gear.config import Config, Sampling, Target, TargetName
from gear.recipes.base import GEAR_L, REBUILT_L, REBUILT_WARM, REPA_L, beside, gear_l, llamagen_repa_l
from gear.recipes.registry import row

SHORT = {1.0: (16.837, 5.408, 65.098, 0.670, 0.611)}  # GEAR-L after 100,000 steps, in Tables 10, 11 and 13
SHORT_REPA = {1.0: (22.371, 6.522, 52.982, 0.635, 0.620)}
REBUILT_SHORT = (20.925, 0.561, 1.721)


def short(name: TargetName = "dinov2-b", spatial_norm: float | None = None, tap: int | None = None) -> Config:
    """GEAR-L in 100,000 steps, aligned to another encoder or at another depth."""
    c = gear_l()
    return replace(
        c, targets=(Target(name, spatial_norm=spatial_norm),), generator=replace(c.generator, tap=tap), steps=100_000
    )


def at(resolution: int) -> Config:
    """GEAR-L in 100,000 steps at another resolution."""
    c = short()
    return replace(c, data=replace(c.data, resolution=resolution), sampling=Sampling(cfg_scale=1.5))


def guided(cfg_scale: float) -> Config:
    """GEAR-L, sampled with guidance."""
    return replace(gear_l(), sampling=Sampling(cfg_scale=cfg_scale))


@row(10, "DINOv2-B", SHORT_REPA, REBUILT_WARM)
def table10_dinov2() -> Config:
    """LlamaGen-REPA-L to DINOv2."""
    return beside(table10_dinov2_gear())


@row(10, "DINOv2-B +GEAR", SHORT, REBUILT_SHORT)
def table10_dinov2_gear() -> Config:
    """GEAR-L to DINOv2."""
    return short()


@row(10, "DINOv3-B", {1.0: (23.115, 6.425, 51.483, 0.631, 0.621)}, REBUILT_WARM)
def table10_dinov3() -> Config:
    """LlamaGen-REPA-L to DINOv3."""
    return beside(table10_dinov3_gear())


@row(10, "DINOv3-B +GEAR", {1.0: (18.967, 5.597, 59.838, 0.658, 0.621)}, (21.021, 0.566, 1.696))
def table10_dinov3_gear() -> Config:
    """GEAR-L to DINOv3."""
    return short("dinov3-b")


@row(10, "SigLIPv2-B", {1.0: (23.254, 6.369, 50.830, 0.631, 0.627)}, REBUILT_WARM)
def table10_siglip2() -> Config:
    """LlamaGen-REPA-L to SigLIP 2."""
    return beside(table10_siglip2_gear())


@row(10, "SigLIPv2-B +GEAR", {1.0: (19.226, 5.360, 59.047, 0.656, 0.611)}, (20.867, 0.558, 1.803))
def table10_siglip2_gear() -> Config:
    """GEAR-L to SigLIP 2."""
    return short("siglip2-b", spatial_norm=0.6)


@row(10, "V-JEPA2.1-B", {1.0: (23.536, 6.369, 50.216, 0.638, 0.608)}, REBUILT_WARM)
def table10_vjepa2_1() -> Config:
    """LlamaGen-REPA-L to V-JEPA 2.1."""
    return beside(table10_vjepa2_1_gear())


@row(10, "V-JEPA2.1-B +GEAR", {1.0: (19.532, 5.876, 56.754, 0.653, 0.610)}, (20.759, 0.553, 1.879))
def table10_vjepa2_1_gear() -> Config:
    """GEAR-L to V-JEPA 2.1."""
    return short("vjepa2.1-b", spatial_norm=0.6)


@row(11, "6th layer", {1.0: (23.102, 6.428, 51.912, 0.636, 0.618)}, REBUILT_WARM)
def table11_layer_6() -> Config:
    """LlamaGen-REPA-L, aligned at block 6."""
    return beside(table11_layer_6_gear())


@row(11, "6th layer +GEAR", {1.0: (16.961, 5.331, 64.200, 0.673, 0.609)}, (20.889, 0.560, 1.714))
def table11_layer_6_gear() -> Config:
    """GEAR-L, aligned at block 6."""
    return short(tap=6)


@row(11, "8th layer", SHORT_REPA, REBUILT_WARM)
def table11_layer_8() -> Config:
    """LlamaGen-REPA-L, aligned at block 8."""
    return beside(table11_layer_8_gear())


@row(11, "8th layer +GEAR", SHORT, REBUILT_SHORT)
def table11_layer_8_gear() -> Config:
    """GEAR-L, aligned at block 8."""
    return short()


@row(11, "10th layer", {1.0: (22.455, 6.417, 52.299, 0.633, 0.628)}, REBUILT_WARM)
def table11_layer_10() -> Config:
    """LlamaGen-REPA-L, aligned at block 10."""
    return beside(table11_layer_10_gear())


@row(11, "10th layer +GEAR", {1.0: (17.988, 5.380, 61.915, 0.666, 0.616)}, (20.930, 0.561, 1.714))
def table11_layer_10_gear() -> Config:
    """GEAR-L, aligned at block 10."""
    return short(tap=10)


@row(12, "LlamaGen-REPA-L", REPA_L, REBUILT_WARM)
def table12_llamagen_repa() -> Config:
    """LlamaGen-REPA-L."""
    return llamagen_repa_l()


@row(12, "GEAR (w/o init.)", {1.0: (13.435, 5.810, 80.696, 0.689, 0.619)}, (20.515, 0.547, 2.256))
def table12_without_init() -> Config:
    """GEAR-L, tokenizer from scratch."""
    return replace(gear_l(), tokenizer=replace(gear_l().tokenizer, init=None))


@row(12, "GEAR (w/ init.)", GEAR_L, REBUILT_L)
def table12_with_init() -> Config:
    """GEAR-L from the warm-up tokenizer."""
    return gear_l()


@row(13, "256", SHORT_REPA | {1.5: (7.255, 5.587, 127.827, 0.788, 0.531)})
def table13_resolution_256() -> Config:
    """LlamaGen-REPA-L at 256 px."""
    return beside(table13_resolution_256_gear())


@row(13, "256 +GEAR", SHORT | {1.5: (5.492, 5.167, 157.681, 0.822, 0.511)})
def table13_resolution_256_gear() -> Config:
    """GEAR-L at 256 px."""
    return at(256)


@row(13, "384", {1.0: (22.977, 7.226, 54.079, 0.616, 0.631), 1.5: (7.159, 5.739, 130.327, 0.772, 0.554)})
def table13_resolution_384() -> Config:
    """LlamaGen-REPA-L at 384 px."""
    return beside(table13_resolution_384_gear())


@row(13, "384 +GEAR", {1.0: (18.364, 5.874, 62.428, 0.658, 0.605), 1.5: (5.945, 5.383, 143.497, 0.807, 0.508)})
def table13_resolution_384_gear() -> Config:
    """GEAR-L at 384 px."""
    return at(384)


@row(13, "512", {1.0: (27.742, 8.720, 46.125, 0.587, 0.633), 1.5: (10.204, 6.650, 107.186, 0.736, 0.553)})
def table13_resolution_512() -> Config:
    """LlamaGen-REPA-L at 512 px."""
    return beside(table13_resolution_512_gear())


@row(13, "512 +GEAR", {1.0: (21.826, 6.336, 55.689, 0.634, 0.613), 1.5: (7.595, 5.621, 126.386, 0.779, 0.531)})
def table13_resolution_512_gear() -> Config:
    """GEAR-L at 512 px."""
    return at(512)


@row(14, "1.00 (w/o CFG)", GEAR_L)
def table14_cfg_1_0() -> Config:
    """GEAR-L without guidance."""
    return guided(1.0)


@row(14, "1.25", {1.25: (4.811, 5.114, 154.546, 0.786, 0.570)})
def table14_cfg_1_25() -> Config:
    """GEAR-L with guidance 1.25."""
    return guided(1.25)


@row(14, "1.50", {1.5: (3.388, 5.446, 216.915, 0.840, 0.525)})
def table14_cfg_1_5() -> Config:
    """GEAR-L with guidance 1.5."""
    return guided(1.5)


@row(14, "1.75", {1.75: (3.916, 5.928, 268.230, 0.872, 0.471)})
def table14_cfg_1_75() -> Config:
    """GEAR-L with guidance 1.75."""
    return guided(1.75)


@row(14, "2.00", {2.0: (5.264, 6.540, 309.665, 0.895, 0.431)})
def table14_cfg_2_0() -> Config:
    """GEAR-L with guidance 2."""
    return guided(2.0)
