"""Tensors in a safetensors file that is whole or not there."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from gear.store.whole import replacing


def save_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Writes `tensors`, contiguous ones, and the text in `metadata`; what was at `path` is there until the new file is
    whole. Anybody may read it. Raises `WriteError`."""
    with replacing(path) as temporary:
        try:
            save_file(dict(tensors), temporary, None if metadata is None else dict(metadata))
        except SafetensorError as error:  # how it tells of a full disk
            raise OSError(str(error)) from error
        temporary.chmod(0o644)  # safetensors makes it the owner's alone
