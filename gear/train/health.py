"""Two guards that only keep books: which updates were left out, and whether the codebook is still in use.

`Skips` counts on the device at every step and tells the host once a line; `Collapse` reads the lines of the log. What
is done about it is the loop's to decide (`gear.config.Guards`).
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from gear.config import Config, Gear, Naive, grid

NEVER = -1  # the last step with an update left out, on the device, where there was none
FEW = 5  # tokens for each codeword that a line must count to be judged, see `Collapse`
DIED = 0.2  # warn where dead codewords grew by this share of K: IBQ from scratch grows by 0.10, the naive way by 0.37


@dataclass(frozen=True)
class SkipReport:
    """
    total: steps so far of which at least one group's update was left out.
    streak: how many of them are the last ones, in a row. longest: the longest row that ended, or grew, since the last
        report; a row is counted whole, from before that report too.
    last_step: the number of the last of them; None without any.
    """

    total: int
    streak: int
    longest: int
    last_step: int | None


class Skips:
    """Counts the updates that `gear.update.update` left out, without a host sync but in `read`.

    on: where the terms of a step are. pending: what `pending` gave, of a run that goes on from there.
    """

    def __init__(self, on: torch.device, pending: Mapping[str, Tensor] | None = None):
        start = {"total": 0, "streak": 0, "longest": 0, "last_step": NEVER}
        self.counts = {name: torch.tensor(n, dtype=torch.int64, device=on) for name, n in start.items()}
        for name, count in (pending or {}).items():
            self.counts[name].copy_(count)

    @torch.no_grad()
    def add(self, step: int, terms: Mapping[str, Float[Tensor, ""]]) -> None:
        """Step number `step`, with the terms of its `Step`: skipped_tokenizer, ... are 1 where an update was left
        out, else 0. Without such terms nothing was."""
        flags = [value for name, value in terms.items() if name.startswith("skipped_")]
        skipped = torch.stack(flags).amax() > 0 if flags else torch.zeros_like(self.counts["total"], dtype=torch.bool)
        c = self.counts
        c["total"] += skipped
        c["streak"].add_(1).mul_(skipped)
        torch.maximum(c["longest"], c["streak"], out=c["longest"])
        c["last_step"].masked_fill_(skipped, step)

    def read(self) -> SkipReport:
        """The one host sync; `longest` begins anew."""
        total, streak, longest, last = torch.stack(list(self.counts.values())).tolist()
        self.counts["longest"].zero_()
        return SkipReport(total, streak, longest, None if last == NEVER else last)

    def pending(self) -> dict[str, Tensor]:
        """For a checkpoint: total, streak, longest, last_step; int64 scalars."""
        return {name: count.clone() for name, count in self.counts.items()}


@dataclass(frozen=True)
class Alarm:
    """
    step: the line's. kind: what gave way. message: what fell, from what to what, what it means and what to do.
    stop: whether it fell below `collapse_stop`.
    """

    step: int
    kind: Literal["effective_size", "dead_codes"]
    message: str
    stop: bool


class Collapse:
    """Says when far fewer codewords are in use than were before in this run.

    The effective size exp(H) is compared with the largest one seen, the share of dead codewords with the smallest one.
    There is one warning for each fall: the next can come only after half of the way back. Below `collapse_stop` every
    line says stop, so that a run that is started again does not go on unseen.

    A line of n tokens shows too few codewords by chance alone: of K codewords used alike it has E[H] = log K - K / 2n
    (Miller 1955), so n = m K tokens have an effective size of K exp(-1 / 2m), and leave exp(-m) of them dead. Lines of
    fewer than m = `FEW` = 5 tokens a codeword, where chance takes a tenth, are neither judged nor remembered. Rare
    codewords seem dead in a short line for much longer, so dead ones are not looked for in a line of fewer steps than
    the one it is compared with.

    lines: the log so far of a run that goes on; what was said of them is not said again.
    """

    def __init__(self, config: Config, lines: Iterable[Mapping[str, Any]] = ()):
        self.guards, self.stage, self.K = config.guards, config.stage, config.tokenizer.quantizer.codebook_size
        self.tokens_a_step = config.batch * grid(config) ** 2
        self.step = 0
        self.largest, self.largest_at = 0.0, 0
        self.fewest_dead, self.fewest_dead_at, self.fewest_dead_steps = 1.0, 0, 0
        self.warned = {"effective_size": False, "dead_codes": False}
        for line in lines:
            self.see(line)

    @property
    def fewest_steps(self) -> int:
        """Steps that a line must be made of to be judged; at a smaller `log_every` this guard is blind."""
        return math.ceil(FEW * self.K / self.tokens_a_step)

    def see(self, line: Mapping[str, Any]) -> Alarm | None:
        """Takes the next line of the log: "step", "effective_size" and "dead_codes" of all tokens since the one before.
        A stop goes before a warning; of two warnings the one about the effective size is given."""
        step, size, dead = int(line["step"]), float(line["effective_size"]), float(line["dead_codes"])
        steps, self.step = step - self.step, step
        if steps < self.fewest_steps or not math.isfinite(size):
            return None
        if size > self.largest:
            self.largest, self.largest_at = size, step
        if (dead, steps) < (self.fewest_dead, self.fewest_dead_steps):
            self.fewest_dead, self.fewest_dead_at, self.fewest_dead_steps = dead, step, steps
        share, warn = size / self.largest, self.guards.collapse_warn
        died, comparable = dead - self.fewest_dead, steps >= self.fewest_dead_steps
        fell = self._crossed("effective_size", share < warn, share > (1 + warn) / 2)
        died_out = comparable and self._crossed("dead_codes", warn > 0 and died > DIED, died < DIED / 2)
        stop = share < self.guards.collapse_stop
        if fell or stop:
            return Alarm(step, "effective_size", self._fell(step, size, stop), stop)
        return Alarm(step, "dead_codes", self._died(step, dead), stop=False) if died_out else None

    def _crossed(self, kind: str, beyond: bool, back: bool) -> bool:
        """Whether a limit was crossed just now."""
        crossed = beyond and not self.warned[kind]
        self.warned[kind] = beyond or (self.warned[kind] and not back)
        return crossed

    def _fell(self, step: int, size: float, stop: bool) -> str:
        guard = "collapse_stop" if stop else "collapse_warn"
        limit = getattr(self.guards, guard)
        return (
            f"the codebook is collapsing: at step {step} as many codewords are in use as if {size:.0f} were used alike "
            f"(effective_size), of K = {self.K}, down from {self.largest:.0f} at step {self.largest_at}, which is "
            f"{size / self.largest:.2f} of it and below guards.{guard} = {limit:g}. {self._advice()}"
        )

    def _died(self, step: int, dead: float) -> str:
        return (
            f"codewords are dying: at step {step} {dead:.1%} of the K = {self.K} were not used once since the line "
            f"before (dead_codes), up from {self.fewest_dead:.1%} at step {self.fewest_dead_at}. {self._advice()}"
        )

    def _advice(self) -> str:
        match self.stage:
            case Naive():
                cause = (
                    "This is the naive way, whose next-token loss makes tokens easy to predict by making them alike: "
                    "train a recipe of GEAR, which keeps that loss from the tokenizer"
                )
            case Gear(readout="straight_through"):
                cause = "The guidance goes straight through: train with stage.readout soft, the paper's"
            case Gear():
                cause = "Train with a lower stage.lam (or lam_soft), or a stage.tau no lower than the paper's 0.1"
            case _:
                cause = "Train with a lower optimizer.tokenizer_lr, or a higher tokenizer.loss.entropy"
        back = "go on from a checkpoint before the fall (keep_every keeps some)"
        return f"Stop and look at the samples. {cause}; or {back}."
