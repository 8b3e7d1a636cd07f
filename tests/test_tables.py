"""The schema's defaults against Tables 15, 16 and 18 and eq. 2 of the paper."""

from gear.config import IBQ, LFQ, VQ, Config, Frozen, Gear, Naive, grid


def test_defaults_are_the_papers():
    c = Config()
    loss, optimizer, generator = c.tokenizer.loss, c.optimizer, c.generator
    assert (loss.reconstruction, loss.perceptual, loss.adversarial, loss.entropy, loss.commitment) == (
        1.0, 0.1, 0.1, 0.05, 0.25,
    )  # eq. 2, Table 16  # fmt: skip
    assert loss.entropy_temperature == 0.01
    assert (optimizer.tokenizer_lr, optimizer.critic_lr, optimizer.generator_lr) == (1e-4, 1e-4, 1e-4)  # Table 16
    assert (optimizer.beta1, optimizer.beta2, optimizer.weight_decay) == (0.9, 0.999, 0.0)
    assert (optimizer.clip, optimizer.ema) == (1.0, 0.9999)
    assert (c.batch, c.precision, c.steps, c.data.resolution) == (256, "bfloat16", 400_000, 256)  # Tables 15, 16
    assert (generator.class_drop, generator.projector) == (0.1, 2048)  # Table 16
    assert (generator.layers, generator.heads, generator.width, generator.tap) == (24, 16, 1024, 8)  # L, Table 15
    assert c.stage == Gear(tau=0.1, lam=0.5)  # Tables 5 and 6
    assert Frozen().lam == Naive().lam == 0.5
    assert c.target.name == "dinov2"
    assert grid(c) == 16
    assert all(q.codebook_size == 16384 for q in (VQ(), LFQ(), IBQ()))  # Table 18
    assert (VQ().dim, LFQ().dim, IBQ().dim) == (8, 14, 256)
