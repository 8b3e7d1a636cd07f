"""The autoregressive generator: a Llama-style causal transformer over the K codebook indices.

Its parameters have the names of the released LlamaGen and GEAR files, except `projectors`, which are g_phi of eq. 5.

B images, M tokens given, N = M + 1 rows that predict a token, D width, K codebook size, hw tokens an image. T rows of
the condition come before the tokens: one for a class, `text.tokens` for a caption.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from gear import config as cfg
from gear.assignment import full
from gear.config_json import from_plain, plain
from gear.generator.condition import CaptionEmbedding, ClassEmbedding
from gear.generator.layers import PLAIN, Block, DualBlock, Head, Past, RMSNorm, Rotary, Sight
from gear.noise import Dropout
from gear.prompts import Prompts
from gear.sharing import Shared

ASKING = """
import torch

from gear import Tokenizer, generate, text

encoder = text.load(model.config.text, torch.device("cpu"), "float32")
prompts = encoder(["a red heart", "a cat"])
rows = torch.tensor([0, 0, 1])  # which prompt each image is of
q = generate(model, rows, prompts=prompts, seed=0, cfg_scale=3.0)
images = Tokenizer.from_pretrained("that of its training").decode(q)  # in [-1, 1]"""
MOST = 1 << 20  # tokens of an image, of which a file may say how many there are


@dataclass(frozen=True)
class States:
    """What one pass gives. Row i is the state that predicts token i: it has seen the condition and tokens 0 .. i-1."""

    tap: Float[Tensor, "B N D"]  # h^(l): output of block l (counted from 1), before the final norm
    projected: dict[str, Float[Tensor, "B n _"]]  # g_phi(h^(l)) for each target; n = N, or N - 1 at align = "same"
    logits: Float[Tensor, "B N K"] | None  # float32; None when the pass stopped at the tap, or was given targets
    ntp: Float[Tensor, ""] | None = None  # L_NTP (eq. 4) of the targets


class Projector(nn.Sequential):
    """g_phi of eq. 5: three linear layers with SiLU between, from the width of h to the channels of f(x)."""

    def __init__(self, width: int, hidden: int, channels: int):
        super().__init__(
            nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, channels)
        )


class Generator(
    nn.Module,
    Shared,
    pipeline_tag="unconditional-image-generation",
    tags=["autoregressive", "class-conditional", "image-generation"],
):
    """p(q_i | c, q_<i) over a grid of h x w tokens, and the states that alignment reads.

    architecture: sizes, tap, dropout; `gear.config.SIZES` has LlamaGen's. codebook_size: K. classes: labels are
    0 .. classes - 1; `null_label` = classes is the null class of guidance. grid: (h, w), tokens in raster order.
    target_dims: channels of f(x) by target name; one `Projector` is built for each. text_width: channels of the text
    encoder, where `architecture.text` makes a caption the condition; there are no classes then.

    Which state meets patch i in eq. 5 is `align`: "next" the one that predicts token i, "same" the one that has
    token i as its input, of which there is none for the class and, in training, for the last patch.

    Every matrix starts as N(0, 0.02^2) except the head, which starts at zero (so the first loss is log K), and the
    projectors, which keep torch's own initialisation.

        generator = Generator.from_pretrained("folder or hub id")  # or .from_released("c2i_L_256.pt")
        q = generate(generator, labels, seed=0, cfg_scale=1.5)     # gear.generator.sampling
    """

    def __init__(
        self,
        architecture: cfg.Generator,  # huggingface_hub would take an argument called config for itself
        *,
        codebook_size: int,
        classes: int,
        grid: tuple[int, int],
        target_dims: Mapping[str, int] | None = None,
        text_width: int | None = None,
    ):
        super().__init__()
        config = architecture
        layers, heads, width, dropout = config.layers, config.heads, config.width, config.dropout
        if not 1 <= config.aligned_block <= layers:
            raise ValueError(f"tap must be a block from 1 to layers = {layers}; it is {config.tap}.")
        if width % (4 * heads):
            raise ValueError(f"width must be a multiple of 4 * heads = {4 * heads} (two axes of pairs); it is {width}.")
        self.config, self.tap, self.grid, self.heads = config, config.aligned_block, grid, heads
        self.first_aligned = 0 if config.align == "next" else 1
        if (config.text is None) != (text_width is None):
            raise ValueError(f"text_width must be given with architecture.text, and only then; it is {text_width}.")
        self.classes, self.text_width = classes, text_width
        self.cls_embedding: Any  # a `ClassEmbedding` reads labels, a `CaptionEmbedding` prompts
        if config.text is None or text_width is None:
            self.cls_embedding = ClassEmbedding(classes, width, config.class_drop)
            self.condition_rows, rotary = 1, config.class_rotary
        else:
            self.cls_embedding = CaptionEmbedding(config.text, text_width, width)
            self.condition_rows, rotary = config.text.tokens, config.text.rotary
        self.tok_embeddings = nn.Embedding(codebook_size, width)
        self.dropout = Dropout(dropout)
        self.rotary = Rotary(grid, width // heads, rotary, self.condition_rows)
        kinds = (DualBlock if i < config.dual_blocks else Block for i in range(layers))
        self.layers = nn.ModuleList(kind(width, heads, dropout) for kind in kinds)
        self.norm = RMSNorm(width)
        self.output = Head(width, codebook_size, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
        nn.init.zeros_(self.output.weight)
        # A module's name has no dots, which a target's may (vjepa2.1-b).
        self.projectors = nn.ModuleDict(
            {
                name.replace(".", "_"): Projector(width, config.projector, channels)
                for name, channels in (target_dims or {}).items()
            }
        )
        self.target_dims = dict(target_dims or {})
        self.class_names: tuple[str, ...] = ()  # for people; kept by `save_pretrained`

    def settings(self) -> dict[str, Any]:
        """The constructor's arguments, for config.json."""
        sizes = {"codebook_size": self.codebook_size, "classes": self.null_label, "grid": list(self.grid)}
        names = list(self.class_names)
        text = {} if self.text_width is None else {"text_width": self.text_width}
        return {"config": plain(self.config), **sizes, "target_dims": self.target_dims, "class_names": names, **text}

    def usage(self) -> str:
        return "" if self.text_width is None else ASKING

    def hub_tags(self) -> dict[str, Any]:
        if self.text_width is None:
            return {}
        return {"pipeline_tag": "text-to-image", "tags": ["autoregressive", "gear", "text-to-image"]}

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> "Generator":
        h, w = settings["grid"]
        if not 0 < h * w <= MOST:
            raise ValueError(f"a grid of {h} x {w} tokens is none that a generator can have")
        generator = cls(
            from_plain(cfg.Generator, settings["config"], "config"),
            codebook_size=settings["codebook_size"],
            classes=settings["classes"],
            grid=(h, w),
            target_dims=settings["target_dims"],
            text_width=settings.get("text_width"),
        )
        generator.class_names = tuple(settings["class_names"])
        return generator

    @classmethod
    def from_released(cls, path: Path | str, *, averaged: bool = True, grid: tuple[int, int] = (16, 16)) -> "Generator":
        """A public file of LlamaGen or GEAR, see `gear.generator.released`; in evaluation mode. `averaged`: the
        exponential moving average, where the file has one. grid: which no file says; (24, 24) for 384 px."""
        from gear.generator.released import read  # late: it is rarely needed

        found = read(Path(path), averaged=averaged)
        generator = cls(
            found.architecture,
            codebook_size=found.codebook_size,
            classes=found.classes,
            grid=grid,
            target_dims=found.target_dims,
            text_width=found.text_width,
        )
        generator.load_state_dict(found.tensors)
        return generator.eval()

    @property
    def embedding(self) -> Float[Tensor, "K D"]:
        """E of eqs 7 and 8, whose rows stand for the tokens."""
        return self.tok_embeddings.weight

    def below_tap(self, name: str) -> bool:
        """Whether a call with `stop_at_tap` on embeddings uses the parameter of this name."""
        first, *rest = name.split(".")
        return int(rest[0]) < self.tap if first == "layers" else first in ("cls_embedding", "projectors")

    @property
    def codebook_size(self) -> int:
        return self.tok_embeddings.num_embeddings

    @property
    def null_label(self) -> int:
        """The label of the null class, the one after the last; 0 where captions take the place of classes."""
        return self.classes

    def nothing(self, batch: int) -> Int[Tensor, "B"] | Prompts:
        """The unconditional input, `batch` times: the null class, or no caption."""
        if isinstance(self.cls_embedding, CaptionEmbedding):
            return self.cls_embedding.unconditional(batch)
        return torch.full((batch,), self.null_label, device=self.embedding.device)

    def forward(
        self,
        tokens: Int[Tensor, "B M"] | Float[Tensor, "B M D"],
        c: Int[Tensor, "B"] | Prompts,
        *,
        targets: Int[Tensor, "B N"] | None = None,
        stop_at_tap: bool = False,
    ) -> States:
        """Runs [e_c, u_1 .. u_M] (eq. 9), 0 <= M < hw, and reads the states off it.

        `tokens` are indices q in [0, K), looked up as E[q] (eq. 7), or embeddings already mixed, pi E (eq. 8).
        c: class labels, or captions. The last token of an image predicts nothing, so training passes q[:, :-1], and q
        as the `targets`, for `ntp` in place of `logits`. With `stop_at_tap`, the blocks above the tap, the norm and the
        head do not run, and `logits` is None.
        """
        u = tokens if tokens.is_floating_point() else self.tok_embeddings(tokens)
        c = self.cls_embedding.dropped(c)
        prefix = self.cls_embedding(c)
        x = self.dropout(torch.cat([prefix, u], dim=1))
        rotary, sight = self.rotary(self.condition_rows - prefix.shape[1], x.shape[1]), self.sight(c, x.shape[1])
        for block in self.layers[: self.tap]:
            x = block(x, rotary, None, sight)
        predicting = slice(prefix.shape[1] - 1, None)  # from the last row of the condition on
        tap = x[:, predicting]
        aligned = zip(self.target_dims, self.projectors.values(), strict=True)
        projected = {name: g(tap[:, self.first_aligned :]) for name, g in aligned}
        if stop_at_tap:
            return States(tap, projected, None)
        for block in self.layers[self.tap :]:
            x = block(x, rotary, None, sight)
        last = self.norm(x[:, predicting])
        if targets is not None:
            return States(tap, projected, None, self.output(last, targets))
        return States(tap, projected, full(self.output(last)))

    def sight(self, c: Int[Tensor, "B"] | Prompts, rows: int) -> Sight:
        """Who sees whom among `rows` rows, the condition's first."""
        return self.cls_embedding.sight(c, rows)

    @torch.no_grad()
    def decode(self, x: Float[Tensor, "B M D"], past: list[Past], sight: Sight = PLAIN) -> Float[Tensor, "B K"]:
        """Logits of the token after x, whose rows follow those in `past`; stores them there. Evaluation mode only.

        x is the condition's rows, perhaps with tokens after them, when `past` is empty; one token's embedding after
        that. sight: as of `forward`; for one row its mask, if something in `past` holds nothing.
        """
        rotary = self.rotary(past[0].rows, x.shape[1])
        for block, layer_past in zip(self.layers, past, strict=True):
            x = block(x, rotary, layer_past, sight)
        return full(self.output(self.norm(x[:, -1])))

    def empty_past(self, batch: int, dtype: torch.dtype | None = None, rows: int | None = None) -> list[Past]:
        """Room for the keys and values of a whole image with its condition, or of `rows` rows, for every layer; by
        default in the parameters' dtype."""
        (h, w), (_, width) = self.grid, self.embedding.shape
        room = rows or self.condition_rows + h * w - 1
        shape = (len(self.layers), 2, batch, self.heads, room, width // self.heads)
        memory = torch.empty(shape, dtype=dtype or self.embedding.dtype, device=self.embedding.device)
        return [Past(keys, values) for keys, values in memory]
