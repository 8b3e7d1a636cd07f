"""Images that are listed and not opened yet."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from gear.data.captions import Captions
from gear.data.images import Split, count, describe, held_out
from gear.data.members import File, Files, Places
from gear.data.mixture import Mixture
from gear.data.strings import Rows, Strings


@dataclass(frozen=True, eq=False)
class Listing:
    """N images, in files of their own or in tars, none of them opened yet."""

    folder: Path  # resolved
    classes: tuple[str, ...]
    names: Sequence[str]  # relative to the folder, with /; in tars shard-000.tar/0001.jpg
    labels: Int64[np.ndarray, "N"]  # indices into `classes`
    problems: tuple[tuple[str, str], ...]  # (reason, name) of what is left out unopened
    others: dict[str, int]  # suffix -> how many files that are no images by their suffix
    members: Places | None = None  # where the images lie that are in no files of their own below the folder
    captions: Captions | None = None  # where that of each image is; None: not asked for
    mixture: Mixture | None = None  # of several sets: their sizes and weights

    def __len__(self) -> int:
        return len(self.names)

    @property
    def skipped(self) -> dict[str, int]:
        """Reason -> how many were left out unopened."""
        return count(self.problems)[0]

    def file(self, i: int) -> File:
        """Where image i is to be read."""
        return self.places[i]

    @property
    def places(self) -> Places:
        return Files(self.folder, self.names) if self.members is None else self.members

    def report(self) -> str:
        """As `Images.report`; files are opened later, so broken ones are not among them."""
        return f"Left out: {describe(*count(self.problems))}." if self.problems else ""

    @property
    def groups(self) -> tuple[str, ...]:
        """Names without their suffixes: a.png and a.jpg are held to be one picture."""
        return tuple(map(_stem, self.names))

    def split(self, holdout: float) -> "Split[Listing]":
        """As `Images.split`: the same images are held out of a folder whether it is prepared or streamed."""
        out = held_out(map(_stem, self.names), holdout, len(self))
        return Split(train=self.rows(np.flatnonzero(~out)), held_out=self.rows(np.flatnonzero(out)))

    def rows(self, index: Rows) -> "Listing":
        names = self.names.rows(index) if isinstance(self.names, Strings) else tuple(self.names[i] for i in index)
        return replace(
            self,
            names=names,
            labels=self.labels[index],
            members=None if self.members is None else self.members.rows(index),
            captions=None if self.captions is None else self.captions.rows(index),
            mixture=None if self.mixture is None else self.mixture.rows(index),
        )


def _stem(name: str) -> str:
    return name.rpartition(".")[0]
