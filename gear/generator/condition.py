"""What an image is generated from: its class, as the first row of the sequence, e_c of eq. 9."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from gear.noise import uniform


class ClassEmbedding(nn.Module):
    """A row for each class and one for the null class, which is label `classes`.

    In training mode a label becomes the null class with probability `drop`: the unconditional half of
    classifier-free guidance (Ho and Salimans 2022).
    """

    def __init__(self, classes: int, width: int, drop: float):
        super().__init__()
        self.classes, self.drop = classes, drop
        self.embedding_table = nn.Embedding(classes + 1, width)

    def forward(self, labels: Int[Tensor, "B"]) -> Float[Tensor, "B 1 D"]:
        if self.training and self.drop > 0:
            dropped = uniform(len(labels), labels.device) < self.drop
            labels = torch.where(dropped, self.classes, labels)
        return self.embedding_table(labels)[:, None]
