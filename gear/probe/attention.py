"""Which words of a caption each image token looks at: the attention of a text-to-image generator.

B images, H heads, T rows of text, hw tokens an image, N = T + hw - 1 rows, C channels a head.
"""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gear.assignment import full
from gear.generator import Generator
from gear.generator.layers import Attention, Block, Sight, rotate
from gear.prompts import Prompts


@torch.no_grad()
def on_text(generator: Generator, tokens: Int[Tensor, "B hw"], prompts: Prompts, block: int) -> Float[Tensor, "B hw T"]:
    """Of each image, the weight that each row of text has where token i is predicted: the mean over heads of

        softmax(q_i k_j / sqrt(C)),    j over all rows that row i sees: text, and the tokens before token i

    in block `block`, counted from 1. What is left of 1 is on image tokens. Rows that hold no text have 0 (but for
    `padding` "right", where the last of them predicts token 0 and sees itself). In evaluation mode, whatever mode it is
    in. With `rotary` "zero", as in released weights, all rows of text have the same weight: their keys are 0.

    Raises ValueError for a block that is none, and for a generator of classes.
    """
    if generator.config.text is None:
        raise ValueError("attention on words is of a generator that reads captions; this one draws classes.")
    if not 1 <= block <= len(generator.layers):
        raise ValueError(f"block must be from 1 to {len(generator.layers)}; it is {block}.")
    held: list[Tensor] = []
    chosen = generator.layers[block - 1]
    assert isinstance(chosen, Block)
    prompts = prompts.to(generator.embedding.device)
    hook = chosen.attention.register_forward_pre_hook(lambda _, given: held.append(given[0]))
    was_training = generator.training
    generator.eval()
    try:
        generator(tokens[:, :-1], prompts)
    finally:
        hook.remove()
        generator.train(was_training)
    (x,), text = held, prompts.valid.shape[1]
    rotary = generator.rotary(generator.condition_rows - text, x.shape[1])
    weights = attention(chosen.attention, x, rotary, generator.sight(prompts, x.shape[1]), prompts.valid)
    return weights.mean(1)[:, text - 1 :, :text]


def attention(
    layer: Attention,
    x: Float[Tensor, "B N D"],
    rotary: Float[Tensor, "N P 2"],
    sight: Sight,
    valid: Bool[Tensor, "B T"],
) -> Float[Tensor, "B H N N"]:
    """The softmax of `layer` on its input, which the layer itself never holds as a whole. Float32.

    A row sees itself and those before it that hold something, the same whether `sight` says so by order or by mask.
    """
    q, k, _ = layer.read(x, sight).unflatten(-1, (3, layer.heads, -1)).permute(2, 0, 3, 1, 4)
    q, k = full(rotate(q, rotary)), full(rotate(k, rotary))
    rows, text = x.shape[1], valid.shape[1]
    place = torch.arange(rows, device=x.device)
    holds = torch.nn.functional.pad(valid, (0, rows - text), value=True)
    sees = ((place[:, None] >= place) & holds[:, None, None, :]) | (place[:, None] == place)
    return (q @ k.mT / math.sqrt(q.shape[-1])).masked_fill(~sees, -torch.inf).softmax(-1)
