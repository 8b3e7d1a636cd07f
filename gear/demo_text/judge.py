"""What a text-to-image generator of the demo can do, in numbers and pictures."""

from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64, UInt8
from torch import Tensor
from torch.nn import functional as F

from gear import demo, inference, run
from gear.data import Images
from gear.data.said import said
from gear.evaluate.features import PooledEfficientNet
from gear.evaluate.frechet import Gaussian, frechet, gaussian
from gear.evaluate.reconstruction import psnr
from gear.generator.sampling import generate
from gear.probe.attention import on_text
from gear.text import TextEncoder
from gear.train.batches import to_float

SHOWN, SEEDS, LOOKED = 12, 3, 2  # captions on the page; samples of each; captions whose attention is shown
WORDS = range(3, 8)  # that such a caption has: enough to compare, few enough to show
ENDS = ("##", "\N{LOWER ONE EIGHTH BLOCK}", "\N{LATIN CAPITAL LETTER G WITH DOT ABOVE}")  # signs of tokenizers


class Judge:
    """Measures both arms against the same images with the same network. Reference features are made once, when first
    needed.

    train, held_out: with captions. generated: images behind gFID. Held-out images are taken in an order of the seed, so
    that any first ones are of all kinds.
    """

    def __init__(self, network: PooledEfficientNet, train: Images, held_out: Images, seed: int, generated: int):
        self.network, self.train, self.held_out, self.seed = network, train, held_out, seed
        rng = np.random.default_rng(seed)
        self.order = rng.permutation(len(held_out))
        self.chosen = rng.choice(len(train), min(generated, len(train)), replace=False)
        self.captions = captions(held_out, self.order, seed)
        self.real = torch.from_numpy(held_out.pixels[self.order])
        self._kept: dict[str, Float[Tensor, "n C"]] = {}

    @property
    def chance(self) -> dict[str, float]:
        """The metrics of images that have nothing to do with their captions: exact, as a mean over all pairings."""
        n, groups = len(self.held_out), np.bincount(self.held_out.labels)
        return {"rank_1": 100 / n, "mean_rank": (n + 1) / 2, "same_group": 100 * float(((groups / n) ** 2).sum())}

    def measure(self, pair: run.Pair) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays: "samples", and "look_0", ... with "looked_0", ..., see `_look`. Numbers: "metrics" and "words"."""
        options = asdict(pair.checkpoint.config.sampling)
        drawn = inference.draw_prompts(pair, self.captions, self.seed, **options)
        of_train = captions(self.train, self.chosen, self.seed)
        generated = inference.draw_prompts(pair, of_train, self.seed, **options)
        rebuilt = inference.rebuild(pair, self.real)
        real, seen = self._of("real", self.real), self._features(drawn)
        ranks, labels = ranks_of_own(seen, real), self.held_out.labels[self.order]
        metrics = {
            "gfid": frechet(self._reference(), gaussian(self._features(generated))),
            "rank_1": 100 * float((ranks == 1).mean()),
            "mean_rank": float(ranks.mean()),
            "same_group": 100 * float((labels[likeness(seen, real).argmax(1).numpy()] == labels).mean()),
            "ceiling_rank_1": 100 * float((ranks_of_own(self._features(rebuilt), real) == 1).mean()),
            "held_out_ntp": ntp(pair, self.held_out, self.order, self.seed),
            "train_ntp": ntp(pair, self.train, self.chosen[: len(self.held_out)], self.seed),
            "psnr": psnr(rebuilt, self.real).mean().item(),
        }
        shown = self.captions[:SHOWN]
        more = [inference.draw_prompts(pair, shown, self.seed + i, **options) for i in range(1, SEEDS)]
        samples = torch.stack([drawn[: len(shown)], *more], dim=1).permute(0, 1, 3, 4, 2).numpy()
        arrays, words = {"samples": samples}, []
        for i, number in enumerate(looked(shown)):
            weights, read = self._look(pair, number, options)
            arrays |= {f"look_{i}": weights, f"looked_{i}": np.array(number)}
            words.append(read)
        return arrays, {"metrics": metrics, "words": words}

    def _look(
        self, pair: run.Pair, number: int, options: dict[str, Any]
    ) -> tuple[Float[np.ndarray, "words h w"], list[str]]:
        """The attention on each word of a caption while its image of the first seed is drawn."""
        assert pair.generator is not None
        assert pair.text is not None
        prompts = pair.text([self.captions[number]])
        q = generate(pair.generator, torch.tensor([0]), seed=self.seed, prompts=prompts, image_ids=[number], **options)
        weights = on_text(pair.generator, q, prompts, look_block(pair))[0][:, prompts.valid[0]]
        return weights.T.unflatten(1, pair.generator.grid).cpu().numpy(), words_of(pair.text, self.captions[number])

    def _reference(self) -> Gaussian:
        return gaussian(self._of("train", torch.from_numpy(self.train.pixels[np.sort(self.chosen)])))

    def _of(self, name: str, pixels: UInt8[Tensor, "n 3 H W"]) -> Float[Tensor, "n C"]:
        if name not in self._kept:
            self._kept[name] = self._features(pixels)
        return self._kept[name]

    def _features(self, pixels: UInt8[Tensor, "n 3 H W"]) -> Float[Tensor, "n C"]:
        return demo.features(self.network, pixels, "features")


def captions(images: Images, rows: Int64[np.ndarray, "n"], seed: int) -> list[str]:
    return [caption or "" for caption in said(images, rows, seed)]


def likeness(a: Float[Tensor, "n C"], real: Float[Tensor, "m C"]) -> Float[Tensor, "n m"]:
    """Cosines of features with the mean of the real ones taken off, without which all are alike."""
    mean = real.mean(0)
    return F.normalize(a - mean, dim=1) @ F.normalize(real - mean, dim=1).T


def ranks_of_own(a: Float[Tensor, "n C"], real: Float[Tensor, "n C"]) -> Float64[np.ndarray, "n"]:
    """The place of real image i among all when ordered by their likeness to image i, from 1; of those that are equally
    like, the middle of their places."""
    like = likeness(a, real).double()
    own = like.diagonal()[:, None]
    return (1 + (like > own).sum(1) + ((like == own).sum(1) - 1) / 2).double().numpy()


@torch.no_grad()
def ntp(pair: run.Pair, images: Images, rows: Int64[np.ndarray, "n"], seed: int) -> float:
    """Mean next-token loss of images with their captions, nats per token of the pair's own tokens."""
    assert pair.generator is not None
    assert pair.text is not None
    total = 0.0
    for start in range(0, len(rows), inference.AT_ONCE):
        part = rows[start : start + inference.AT_ONCE]
        q = pair.tokenizer.encode(to_float(torch.from_numpy(images.pixels[part]).to(pair.on)))
        prompts = pair.text(captions(images, part, seed))
        total += pair.generator(q[:, :-1], prompts, targets=q).ntp.item() * len(part)
    return total / len(rows)


def looked(texts: list[str]) -> list[int]:
    """The first captions with a fair number of words; any, where there are none."""
    fair = [i for i, text in enumerate(texts) if len(text.split()) in WORDS]
    return (fair or list(range(len(texts))))[:LOOKED]


def look_block(pair: run.Pair) -> int:
    """The first block that has one set of weights for text and image, else the last."""
    assert pair.generator is not None
    return min(pair.generator.config.dual_blocks + 1, pair.generator.config.layers)


def words_of(encoder: TextEncoder, text: str) -> list[str]:
    """The tokens that an encoder reads, special ones included, without the signs of its tokenizer."""
    ids = encoder.tokenizer(text, truncation=True, max_length=encoder.tokens)["input_ids"]
    tokens = encoder.tokenizer.convert_ids_to_tokens(ids)
    for sign in ENDS:
        tokens = [token.replace(sign, "") or token for token in tokens]
    return tokens
