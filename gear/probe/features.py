"""What is probed, and what is kept of it: one pass over the images, each network's feature maps read as they come.

Everything is in evaluation mode and float32. B images of a batch, n in all, N = h w positions.

The tokenizer is read where it quantizes: before it the latents z that A compares with the codewords (of unit length
for VQ), after it the codewords c_q. The generator is read layer by layer, 0 being the output of its embedding, on the
images' own tokens (teacher forcing) and with the null class or no caption, so that no state is told what the tokens do
not say. Row i of its states, which has seen tokens 0 .. i-1 and predicts token i, is set beside patch i as the
alignment does (`Generator.first_aligned`, `gear.losses.alignment`): at align = "same" patch i meets row i+1, and the
last patch, whose state does not exist in teacher forcing, is left out for every network.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float32, Float64, Int, Int64, UInt8
from torch import Tensor
from torch.nn import functional as F

from gear.generator import Generator
from gear.probe.codebook import natural_mass, soft_mass
from gear.probe.spatial import high_frequency_share, morans_i
from gear.targets import Target
from gear.tokenizer.tokenizer import Tokenizer
from gear.train.batches import to_float

TARGET, PRE, POST = "the target encoder", "the tokenizer before quantization", "the tokenizer after quantization"
LAYER = "the generator's layer"


class FeatureError(ValueError):
    """Features that cannot be measured: whose, at which images, what to do."""


@dataclass(frozen=True)
class Kept:
    """Of one feature map of D channels over n images, on the CPU.

    pooled: the mean over each image's positions. patches: the positions drawn. moran, fft_high: `gear.probe.spatial`,
    NaN for an image whose map is the same everywhere.
    """

    pooled: Float32[Tensor, "n D"]
    patches: Float32[Tensor, "M D"]
    moran: Float32[Tensor, "n"]
    fft_high: Float32[Tensor, "n"]


@dataclass(frozen=True)
class Seen:
    """
    layers: of the generator, 0 first; empty where there is none. natural, soft: masses over the K codewords.
    """

    target: Kept
    pre: Kept
    post: Kept
    layers: tuple[Kept, ...]
    natural: Float64[Tensor, "K"]
    soft: Float64[Tensor, "K"]


@torch.no_grad()
def look(
    tokenizer: Tokenizer,
    generator: Generator | None,
    target: Target,
    batches: Iterator[UInt8[Tensor, "B 3 H W"]],
    n: int,
    grid: tuple[int, int],
    *,
    patches: int,
    tau: float,
    seed: int,
    on: torch.device,
    advance: Callable[[int], object] = lambda images: None,
) -> Seen:
    """Runs all networks, which are on the device `on`, over the n images of `batches`, of h x w tokens each.

    patches: M, drawn by the seed from all positions of all images (pooled, not image by image); all, if there are
    fewer. tau: of the soft usage. advance: is told after each batch how many images it had. Memory: (n + M) D float32
    a map, 0.5 GB for 25 layers of 1,024 channels at n = 1,000 and M = 4,096. Raises `FeatureError` at the first batch
    in which a feature is not finite.
    """
    first = 0 if generator is None else generator.first_aligned
    N = grid[0] * grid[1] - first
    drawn = draw_positions(n, N, patches, seed)
    keepers: dict[str, Keeper] = defaultdict(lambda: Keeper(grid, drawn, N))
    K = tokenizer.quantizer.codebook_size
    natural, soft, start = torch.zeros(K, dtype=torch.float64), torch.zeros(K, dtype=torch.float64), 0
    for pixels in batches:
        pixels = pixels.to(on)
        quantized, _ = tokenizer.eval().quantized(to_float(pixels))
        A, c_q = quantized.assignment, F.embedding(quantized.q, tokenizer.quantize.codewords())
        for name, f in ((TARGET, target.features(pixels, grid)), (PRE, A.z), (POST, c_q)):
            keepers[name].add(name, f, 0, start)
        for layer, h in enumerate(states(generator, quantized.q) if generator is not None else ()):
            keepers[f"{LAYER} {layer}"].add(f"{LAYER} {layer}", h, first, start)
        natural += natural_mass(A).double().cpu()
        soft += soft_mass(A, tau).double().cpu()
        start += len(pixels)
        advance(len(pixels))
    target_map, pre, post, *layers = (keeper.done() for keeper in keepers.values())
    return Seen(target_map, pre, post, tuple(layers), natural, soft)


def states(generator: Generator, q: Int[Tensor, "B N"]) -> Iterator[Float[Tensor, "B N D"]]:
    """The rows of `Generator.forward` below each block and after the last: raw, before any norm or projector. The head
    does not run."""
    generator.eval()
    c = generator.nothing(len(q))
    x = torch.cat([generator.cls_embedding(c), generator.tok_embeddings(q[:, :-1])], dim=1)
    text = x.shape[1] - q.shape[1]  # rows before the one that predicts the first token
    rotary, sight = generator.rotary(generator.condition_rows - 1 - text, x.shape[1]), generator.sight(c, x.shape[1])
    yield x[:, text:]
    for block in generator.layers:
        x = block(x, rotary, None, sight)
        yield x[:, text:]


def draw_positions(n: int, N: int, M: int, seed: int) -> Int64[Tensor, "m"]:
    """m = min(M, n N) different numbers i N + j for position j of image i, ascending."""
    order = torch.randperm(n * N, generator=torch.Generator().manual_seed(seed))
    return order[:M].sort().values


class Keeper:
    """Makes a `Kept` of one feature map, a batch at a time."""

    def __init__(self, grid: tuple[int, int], drawn: Int64[Tensor, "m"], N: int):
        self.grid, self.drawn, self.N = grid, drawn, N
        self.parts: list[tuple[Tensor, ...]] = []

    def add(self, name: str, f: Float[Tensor, "B R D"], first: int, start: int) -> None:
        """f: R = h w rows. Row first + j is patch j < N of the similarities; the map of the spatial measures is all
        rows as they come, which at first = 1 is one patch later in raster order. start: number of the first image."""
        f = f.float()
        similar = f[:, first : first + self.N]
        pooled = similar.mean(1).cpu()
        if not (finite := pooled.isfinite().all(1)).all():
            raise FeatureError(
                f"the features of {name} are NaN or infinite at image {start + int(finite.int().argmin())}, so nothing "
                "can be measured: has the training diverged? Probe an earlier checkpoint."
            )
        low, high = torch.searchsorted(self.drawn, torch.tensor([start * self.N, (start + len(f)) * self.N])).tolist()
        at = (self.drawn[low:high] - start * self.N).to(f.device)
        rest = similar[at // self.N, at % self.N], morans_i(f, self.grid), high_frequency_share(f, self.grid)
        self.parts.append((pooled, *(t.cpu() for t in rest)))

    def done(self) -> Kept:
        return Kept(*(torch.cat(part) for part in zip(*self.parts, strict=True)))
