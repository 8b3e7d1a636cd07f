"""GEAR: an image tokenizer and its autoregressive generator, trained together.

Symbols, as in the paper, and their shapes. B images, N = h w tokens an image, K codewords, d latent channels,
D generator width, C target channels.

    x        B 3 H W   images in [-1, 1]                      x_hat   B 3 H W   their reconstructions
    c        B         class labels                           f(x)    B N C     features of a frozen vision encoder
    z        B N d     latents of the encoder                 q       B N       hard indices, argmax_k A_ik
    c_k      K d       codewords                              E       K D       the generator's own token embeddings
    A        B N K     assignment, never held (gear.assignment)
    pi       B N K     softmax(A / tau)                       u^h     B N D     hard read-out, E[q]
    tau                guidance temperature                   u^s     B N D     soft read-out, pi E
    lam                alignment coefficient                  h^(l)   B N D     states after block l, the tap
    g_phi              projector, D -> C                      NTP               next-token prediction loss, nats a token

Read `gear.step` beside Algorithm 1, then `gear.assignment`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gear.assignment import Assignment
    from gear.config import Config
    from gear.generator import Generator
    from gear.generator.sampling import generate
    from gear.run import load
    from gear.step import frozen_step, gear_step, naive_step, warmup_step
    from gear.tokenizer.tokenizer import Tokenizer

_HOMES = {
    "Assignment": "gear.assignment",
    "Config": "gear.config",
    "Generator": "gear.generator",
    "Tokenizer": "gear.tokenizer.tokenizer",
    "frozen_step": "gear.step",
    "gear_step": "gear.step",
    "generate": "gear.generator.sampling",
    "load": "gear.run",
    "naive_step": "gear.step",
    "warmup_step": "gear.step",
}
__all__ = [
    "Assignment",
    "Config",
    "Generator",
    "Tokenizer",
    "frozen_step",
    "gear_step",
    "generate",
    "load",
    "naive_step",
    "warmup_step",
]


def __getattr__(name: str) -> Any:
    """The public names, imported when they are first asked for, so that `gear --help` does not wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"gear has no {name!r}; its public names are {', '.join(__all__)}.")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
