"""Refuses a configuration that cannot work, before anything is loaded."""

import dataclasses
import math

from gear.config import NAMED, VQGAN, Config, ConfigError, Frozen, Gear, Naive, Warmup


def check(config: Config) -> Config:
    """Returns `config` unchanged, or raises `ConfigError` naming the field, what is needed and what came."""
    t, g, d, o, stage = config.tokenizer, config.generator, config.data, config.optimizer, config.stage
    b = t.backbone
    blocks = ("encoder_blocks", "decoder_blocks", "latent", "patch") if isinstance(b, VQGAN) else ("blocks",)

    def need(ok: bool, name: str, needed: str, came: object) -> None:
        if not ok:
            raise ConfigError(f"{name} must be {needed}; it is {came}.")

    for owner, prefix, names in (
        (config, "", ("steps", "batch", "log_every", "save_every", "keep_last")),
        (config.engine, "engine.", ("accumulate",)),
        (config.guards, "guards.", ("skip_limit",)),
        (config.watch, "watch.", ("samples", "generated")),
        (g, "generator.", ("layers", "heads", "width", "projector")),
        (b, "tokenizer.backbone.", ("channels", "groups", *blocks)),
        (t.critic, "tokenizer.critic.", ("channels", "layers")),
    ):
        for name in names:
            need(getattr(owner, name) >= 1, prefix + name, "at least 1", getattr(owner, name))
    multipliers = b.multipliers
    need(min(multipliers, default=0) >= 1, "tokenizer.backbone.multipliers", "one or more, all at least 1", multipliers)
    need(0 <= config.seed < 2**63, "seed", "from 0 to 2^63 - 1", config.seed)
    down = b.downsample
    nearest = max(down, round(d.resolution / down) * down)
    need(
        d.resolution > 0 and d.resolution % down == 0,
        "data.resolution",
        f"a multiple of {down}, which is what tokenizer.backbone down-samples by (the nearest is {nearest})",
        d.resolution,
    )
    need(1 <= g.aligned_block <= g.layers, "generator.tap", f"between 1 and generator.layers = {g.layers}", g.tap)
    need(g.width % g.heads == 0, "generator.width", f"a multiple of generator.heads = {g.heads}", g.width)
    need(
        g.width // g.heads % 4 == 0,
        "generator.width / generator.heads",
        "a multiple of 4, two channels for each axis of the 2-D rotary embedding",
        g.width // g.heads,
    )
    need(0.0 <= g.class_drop < 1.0, "generator.class_drop", "in [0, 1)", g.class_drop)
    if g.text is not None:
        text = g.text
        need(text.tokens >= 1, "generator.text.tokens", "at least 1", text.tokens)
        need(0.0 <= text.drop < 1.0, "generator.text.drop", "in [0, 1)", text.drop)
        need(0 <= g.dual_blocks <= g.layers, "generator.text.dual", f"from 0 to layers = {g.layers}", text.dual)
        need(text.encoder != "", "generator.text.encoder", "a text encoder", "empty")
        need(g.classes is None, "generator.classes", "unset where captions take the place of classes", g.classes)
        need(d.path != "cifar10", "data.path", "a set with captions, which cifar10 has not", d.path)
    need(0.0 <= g.dropout < 1.0, "generator.dropout", "in [0, 1)", g.dropout)
    need(t.quantizer.dim >= 1, "tokenizer.quantizer", "of at least one dimension", t.quantizer.dim)
    K = t.quantizer.codebook_size
    need(K >= 2, "tokenizer.quantizer.codebook_size", "at least two codewords", K)
    for level, multiplier in enumerate(multipliers):
        width = b.channels * multiplier
        need(
            width % b.groups == 0,
            f"tokenizer.backbone.channels * multipliers[{level}]",
            f"a multiple of tokenizer.backbone.groups = {b.groups}",
            width,
        )
    if isinstance(stage, Gear | Naive):
        need(stage.tau > 0, "stage.tau", "above 0 (the soft read-out is softmax(A / tau))", stage.tau)
    if isinstance(stage, Gear):
        need(stage.lam_soft is None or stage.lam_soft >= 0, "stage.lam_soft", "0 or more", stage.lam_soft)
    if not isinstance(stage, Warmup):
        need(stage.lam >= 0, "stage.lam", "0 or more", stage.lam)
    if isinstance(stage, Frozen):
        need(t.init is not None, "tokenizer.init", "a trained tokenizer (frozen training never changes it)", t.init)
    else:
        need(
            d.codes is None,
            "data.codes",
            "unset unless the tokenizer is frozen (stored tokens would not move)",
            d.codes,
        )
    w, every = config.watch, config.keep_every
    need(w.sample_every >= 0, "watch.sample_every", "0 (none) or more", w.sample_every)
    need(w.evaluate_every >= 0, "watch.evaluate_every", "0 (never) or more", w.evaluate_every)
    need(len(set(w.trackers)) == len(w.trackers), "watch.trackers", "different ones", w.trackers)
    for name in ("collapse_warn", "collapse_stop"):
        share = getattr(config.guards, name)
        need(0 <= share < 1, f"guards.{name}", "in [0, 1)", share)
    multiple = every is None or (every >= 1 and every % config.save_every == 0)
    need(multiple, "keep_every", f"a multiple of save_every = {config.save_every}", every)
    parts = config.engine.accumulate
    need(config.batch % parts == 0, "batch", f"a multiple of engine.accumulate = {parts}", config.batch)
    if config.engine.shard:
        needed = "False in the naive way, whose gradient through the embedding needs it whole"
        need(not isinstance(stage, Naive), "engine.shard", needed, config.engine.shard)
    names = [target.name for target in config.targets]
    need(len(set(names)) == len(names), "targets", "different encoders", names)
    for i, target in enumerate(config.targets):
        need(target.layer is None or target.layer >= 1, f"targets[{i}].layer", "at least 1", target.layer)
        alpha = target.spatial_norm
        need(alpha is None or 0 <= alpha <= 1, f"targets[{i}].spatial_norm", "in [0, 1]", alpha)
    need(d.workers >= 0, "data.workers", "0 or more", d.workers)
    need(d.views is None or d.views >= 1, "data.views", "at least 1", d.views)
    need(d.views is None or d.crop == "random", "data.views", 'unset unless data.crop is "random"', d.views)
    for path in (d.path, *(part.path for part in d.mixture)):
        named = path in NAMED
        need(d.prepare or not named, "data.prepare", f"on for {path}, which is in memory", d.prepare)
        need(d.crop == "center" or not named, "data.crop", f'"center" for {path}, whose images are square', d.crop)
    if d.codes is not None:
        needed = "set with data.codes and a random crop: only fixed crops can be stored"
        need(d.crop == "center" or d.views is not None, "data.views", needed, d.views)
    s = config.sampling
    need(0 <= s.cfg_scale < math.inf, "sampling.cfg_scale", "0 or more (1 is no guidance)", s.cfg_scale)
    need(s.temperature >= 0, "sampling.temperature", "0 or more", s.temperature)
    need(s.top_k >= 0, "sampling.top_k", "0 or more (0 keeps all)", s.top_k)
    need(0 < s.top_p <= 1, "sampling.top_p", "in (0, 1]", s.top_p)
    for f in dataclasses.fields(t.loss):
        value = getattr(t.loss, f.name)
        if isinstance(value, float):
            need(value >= 0, f"tokenizer.loss.{f.name}", "0 or more", value)
    need(t.loss.entropy_temperature > 0, "tokenizer.loss.entropy_temperature", "above 0", t.loss.entropy_temperature)
    for name in ("tokenizer_lr", "critic_lr", "generator_lr", "clip"):
        need(getattr(o, name) > 0, f"optimizer.{name}", "above 0", getattr(o, name))
    for name in ("beta1", "beta2", "ema"):
        need(0 <= getattr(o, name) < 1, f"optimizer.{name}", "in [0, 1)", getattr(o, name))
    need(o.weight_decay >= 0, "optimizer.weight_decay", "0 or more", o.weight_decay)
    need(d.path != "", "data.path", '"builtin", "cifar10", "emoji", a folder, a .csv or a .jsonl', "empty")
    for i, part in enumerate(d.mixture):
        need(part.path != "", f"data.mixture[{i}].path", "as data.path", "empty")
        need(1e-3 <= part.weight <= 1e3, f"data.mixture[{i}].weight", "from 0.001 to 1000", part.weight)
        need(part.path != "cifar10", f"data.mixture[{i}].path", "a set with captions, which cifar10 has not", part.path)
    mixed = not d.mixture or g.text is not None
    need(
        mixed,
        "data.mixture",
        "empty unless generator.text is set: classes of several sets have no common labels",
        "set",
    )
    if not isinstance(stage, Frozen):
        trunk, pixels = t.loss.perceptual_trunk, {"alex": 31, "vgg": 16}[t.loss.perceptual_trunk]
        if t.loss.perceptual > 0:
            need(d.resolution >= pixels, "data.resolution", f"at least {pixels} for LPIPS over {trunk}", d.resolution)
        pixels = 3 * 2**t.critic.layers
        if t.loss.adversarial > 0:
            needed = f"at least {pixels} for tokenizer.critic.layers = {t.critic.layers}"
            need(d.resolution >= pixels, "data.resolution", needed, d.resolution)
    need(0.0 <= d.holdout < 1.0, "data.holdout", "in [0, 1)", d.holdout)
    return config
