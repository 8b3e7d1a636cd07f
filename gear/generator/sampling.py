"""Drawing token grids from a generator: guide, filter_logits, draw, generate.

**One seed, one result.** The tokens of image i depend on (seed, i), its label and the options, and not on how many
images are asked for, in which calls, or on which rank. Two things make it so. The noise of an image is a function of
(seed, i) alone. And the network always runs the same number of rows (`batch`), with image i in row i % batch and a
dummy where there is no image: a matrix product rounds differently for another number of rows, and with K = 16384 one
image in a hundred then has a token that a last bit decided. Rows do not see each other. On one CPU the rows of a
float32 product were the same bits for 4, 8, 12 .. 128 of them, but those of attention on two threads were not.

**One prompt, one text pass.** A caption is read by itself, once for all its images, and its keys and values are laid
into the rows that draw them. What comes of a prompt therefore depends neither on the others nor on their lengths.

b images of one pass, n images asked for, N = hw tokens, K codebook size.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from gear.generator.beginning import Begun, begin_classes, reader
from gear.generator.generator import Generator
from gear.generator.layers import Sight
from gear.generator.lighter import packed
from gear.generator.recorded import Lanes, Recorded, graphs
from gear.prompts import Prompts

LANES = 32  # rows of one pass by default: below 16 the CPU is slower per image, above 128 its caches overflow

Finished = Callable[[list[int], Int[Tensor, "b N"]], None]  # which of the labels, and their tokens


def guide(cond: Float[Tensor, "b K"], uncond: Float[Tensor, "b K"], scale: float) -> Float[Tensor, "b K"]:
    """Classifier-free guidance, u + s (c - u): s = 0 is unconditional, 1 conditional, above 1 exaggerates the class."""
    return uncond + scale * (cond - uncond)


def filter_logits(
    logits: Float[Tensor, "b K"], temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0
) -> Float[Tensor, "b K"]:
    """Logits over `temperature`, then -inf outside the `top_k` largest, then outside the nucleus `top_p`.

    temperature 0 leaves only the largest. top_k 0 keeps all, and a tie at the k-th place keeps both. The nucleus is
    the smallest set of most probable tokens whose mass reaches top_p. Only top_k and top_p look at the order.
    """
    if temperature == 0:
        best = logits.argmax(-1, keepdim=True)
        return torch.full_like(logits, -torch.inf).scatter(-1, best, 0.0)
    logits = logits / temperature
    if 0 < top_k < logits.shape[-1]:
        kth = logits.topk(top_k).values[:, -1:]
        logits = logits.masked_fill(logits < kth, -torch.inf)
    if top_p < 1:
        ordered, order = logits.sort(dim=-1, descending=True, stable=True)
        p = ordered.double().softmax(-1)
        mass_before = p.cumsum(-1) - p
        logits = torch.full_like(logits, -torch.inf).scatter(
            -1, order, ordered.masked_fill(mass_before >= top_p, -torch.inf)
        )
    return logits


def draw(p: Float[Tensor, "b K"], noise: Float[Tensor, "b"]) -> Int[Tensor, "b"]:
    """Inverse of the distribution function: the first k with p_0 + .. + p_k above `noise`, uniform in [0, 1).

    p need not sum to one exactly; a token with p = 0 is never drawn. In float64. Where p is not a number, any token.
    """
    cdf = p.double().cumsum(-1)
    token = torch.searchsorted(cdf, noise[:, None] * cdf[:, -1:], right=True)[:, 0]
    return token.clamp(max=p.shape[-1] - 1)


def uniforms(seed: int, image: int, count: int) -> Float[Tensor, "count"]:
    """The noise of one image, a function of (seed, image): float64 multiples of 2^-40 in [0, 1).

    Philox keyed by the pair: streams of different pairs do not overlap, and there is no hash that could collide.
    40 bits keep noise * cdf[-1] below cdf[-1] after rounding, so that `draw` never ends on a token with p = 0.
    """
    raw = np.random.Philox(key=np.array([seed, image], dtype=np.uint64)).random_raw(count)
    return torch.from_numpy((raw >> np.uint64(24)) * 2.0**-40)


def class_labels(n: int, classes: int, given: Sequence[int] | None, seed: int) -> Int[Tensor, "n"]:
    """Labels of n images: `given`, repeated as often as needed, or each class n // classes times or once more.

    Which classes come first is shuffled by `seed`; any leading part of the labels is balanced too.
    """
    if n < 1:
        raise ValueError(f"the number of images must be at least 1; it is {n}.")
    order = torch.tensor(given) if given else torch.randperm(classes, generator=torch.Generator().manual_seed(seed))
    check_labels(order, classes)
    return order[torch.arange(n) % len(order)]


def check_labels(labels: Int[Tensor, "n"], classes: int) -> None:
    wrong = labels[(labels < 0) | (labels >= classes)]
    if len(wrong):
        raise ValueError(f"a class label must be from 0 to {classes - 1}; {int(wrong[0])} was asked for.")


def check_rows(labels: Int[Tensor, "n"], prompts: int) -> None:
    """As `check_labels`, of rows of prompts."""
    wrong = labels[(labels < 0) | (labels >= prompts)]
    if len(wrong):
        there = "is 1 row, number 0" if prompts == 1 else f"are {prompts} rows, 0 to {prompts - 1}"
        raise ValueError(f"row {int(wrong[0])} of prompts was asked for; there {there}.")


@dataclass(frozen=True)
class Options:
    """How tokens are drawn. The defaults draw from the model's own distribution, without guidance.

    cfg_interval: the token range [a, b) in which guidance acts; None: everywhere. The released code's interval c
    is [0, c + 2): its first token is guided always, and its steps are counted from the second.
    """

    cfg_scale: float = 1.0
    cfg_interval: tuple[int, int] | None = None
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        a, b = self.cfg_interval or (0, 0)
        for ok, name, needed in (
            (self.cfg_scale >= 0, "cfg_scale", "0 or more (1 is no guidance)"),
            (self.cfg_scale < float("inf"), "cfg_scale", "finite"),
            (0 <= a <= b, "cfg_interval", "a token range (a, b) with 0 <= a <= b"),
            (self.temperature >= 0, "temperature", "0 or more (0 takes the most likely token)"),
            (self.top_k >= 0, "top_k", "0 or more (0 keeps every token)"),
            (0 < self.top_p <= 1, "top_p", "above 0 and at most 1 (1 keeps every token)"),
        ):
            if not ok:
                raise ValueError(f"{name} must be {needed}; it is {getattr(self, name)}.")

    @property
    def guided(self) -> bool:
        """Whether guidance acts on any token."""
        a, b = self.cfg_interval or (0, 1)
        return self.cfg_scale != 1 and a < b


@torch.no_grad()
def generate(
    generator: Generator,
    labels: Int[Tensor, "n"],
    *,
    seed: int,
    cfg_scale: float = 1.0,
    cfg_interval: tuple[int, int] | None = None,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    prompts: Prompts | None = None,
    negative: Prompts | None = None,
    image_ids: Sequence[int] | None = None,
    batch: int = LANES,
    cuda_graphs: bool = False,
    progress: Callable[[int, int], None] | None = None,
    finished: Finished | None = None,
) -> Int[Tensor, "n N"]:
    """Tokens in [0, K) for each label, int64 on the generator's device; evaluation mode, whatever mode it is in.

    labels: classes, or, for a generator with text, rows of `prompts`: which one each image is of; any whole numbers.
    negative: one caption, which guidance leads away from, in place of the unconditional input.

    cfg_scale, cfg_interval, temperature, top_k, top_p: see `Options`; out of range is a ValueError, as a label is.
    image_ids: the global number of each image, 0 or more; None: 0 .. n-1. Ranks that share a job give each image its
        number in the whole, best in contiguous runs: image id sits in row id % batch, and a row without one is wasted.
    batch: rows of one pass; each needs 2 * layers * N * width numbers of cache, twice that under guidance. Fewer images
        than that cost as much as `batch` of them: for one or a few give it. Another batch rounds differently, and now
        and then that decides a token, so compare runs at the same one.
    cuda_graphs: on CUDA, of three passes or more, record the steps of the second and replay them in the later ones: see
        `gear.generator.recorded`. The tokens are the same. ValueError on another device.
    progress: called after every token step with (steps done, steps in all). finished: after every pass.
    """
    if batch < 1:
        raise ValueError(f"batch must be at least 1; it is {batch}.")
    options = Options(cfg_scale, cfg_interval, temperature, top_k, top_p)
    reader(generator, prompts, negative)
    labels = labels.long()
    if prompts is None:
        check_labels(labels, generator.null_label)
    else:
        check_rows(labels, len(prompts))
    ids = range(len(labels)) if image_ids is None else image_ids
    if len(ids) != len(labels):
        raise ValueError(f"image_ids must number each of the {len(labels)} labels; there are {len(ids)}.")
    if seed < 0 or any(image < 0 for image in ids):
        raise ValueError(f"seed and image_ids must be 0 or more; seed is {seed}, the lowest id {min(ids, default=0)}.")
    device, steps = generator.embedding.device, generator.grid[0] * generator.grid[1]
    record = graphs(device) if cuda_graphs else None
    passes = seat(ids, batch)
    tokens = torch.empty(len(labels), steps, dtype=torch.int64, device=device)
    was_training = generator.training
    try:
        network = packed(generator.eval())
        reading = reader(network, prompts, negative)
        begin = partial(begin_classes, network) if reading is None else reading.begin
        lanes = Lanes(begin, options.guided, (batch, steps), device)
        take = partial(take_step, network, options, lanes)
        if record is not None and len(passes) > 2:
            take = Recorded(take, record)
        for number, seats in enumerate(passes):
            rows = [row for row, index in enumerate(seats) if index is not None]
            indices = [index for index in seats if index is not None]
            # Rows without an image: the null class, or a prompt that is read anyway.
            row_labels = torch.full((batch,), generator.null_label if prompts is None else int(labels[indices[0]]))
            row_labels[rows] = labels[indices].cpu()
            noise = torch.zeros(batch, steps, dtype=torch.float64)
            noise[rows] = torch.stack([uniforms(seed, ids[index], steps) for index in indices])

            def step_done(step: int, number: int = number) -> None:
                if progress is not None:
                    progress(number * steps + step, len(passes) * steps)

            lanes.fill(row_labels, noise)
            drawn = run_lanes(lanes, take, step_done)[rows]
            tokens[indices] = drawn
            if finished is not None:
                finished(indices, drawn)
    finally:
        generator.train(was_training)
    return tokens


def seat(image_ids: Sequence[int], lanes: int) -> list[tuple[int | None, ...]]:
    """For each pass over the network and each of its rows, which position of `image_ids` sits there (None: nobody).

    Image id i always sits in row i % lanes. Contiguous ids fill every row.
    """
    queues: list[list[int]] = [[] for _ in range(lanes)]
    for index, image in enumerate(image_ids):
        queues[image % lanes].append(index)
    return list(zip_longest(*queues))


def run_lanes(lanes: Lanes, take: Callable[[int], None], step_done: Callable[[int], None]) -> Int[Tensor, "b N"]:
    """One pass: N token steps for b rows. The tokens are overwritten by the next one."""
    for step in range(lanes.noise.shape[1]):
        take(step)
        step_done(step + 1)
    if not lanes.finite:  # asked once a pass, because a GPU has to wait for the answer
        raise ValueError(
            "the generator's logits are not finite: its training diverged, so sample from an earlier state."
        )
    return lanes.tokens


def take_step(generator: Generator, options: Options, lanes: Lanes, step: int) -> None:
    """Token number `step` of every row. Under guidance, rows b .. 2b are unconditional, up to the interval's end.

    What it does depends on `step` alone and not on any number in `lanes`, so that it can be recorded.
    """
    b, steps = lanes.noise.shape
    first, end = options.cfg_interval or (0, steps)
    guided = options.guided and step < end
    rows = lanes.rows(guided, max(0, step - 1))
    logits = rows.logits
    if step > 0:
        x = generator.tok_embeddings(lanes.tokens[:, step - 1])[:, None]
        logits = _next(generator, rows, torch.cat([x, x]) if guided else x)
    lanes.finite.logical_and_(logits.isfinite().all())
    if guided:
        logits = guide(logits[:b], logits[b:], options.cfg_scale) if step >= first else logits[:b]
    logits = filter_logits(logits, options.temperature, options.top_k, options.top_p)
    lanes.tokens[:, step] = draw(logits.double().softmax(-1), lanes.noise[:, step])


def _next(generator: Generator, rows: Begun, x: Float[Tensor, "r 1 D"]) -> Float[Tensor, "r K"]:
    """One token further."""
    if rows.holds is None:
        return generator.decode(x, rows.past)
    return generator.decode(x, rows.past, Sight(mask=rows.holds[:, None, None, : rows.past[0].rows + 1]))
