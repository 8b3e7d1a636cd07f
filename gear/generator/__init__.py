"""The autoregressive generator: a Llama-style causal transformer over codebook indices, and sampling from it."""

from gear.generator.generator import Generator, Projector, States
from gear.generator.sampling import class_labels, generate

__all__ = ["Generator", "Projector", "States", "class_labels", "generate"]
