"""The part of a network of transformers that reads text: whole decoders and encoders, the encoder of a pair, the text
tower of a CLIP."""

from pathlib import Path
from typing import Any

from torch import nn

from gear.store import pretrained
from gear.store.strict import some
from gear.text.files import TextError, configuration, explained

TEXT_PARTS = ("text_model", "language_model")  # of networks that read images too
UNUSED = ("pooler.",)  # behind the states, and absent where only the masked-word head was trained


def network(folder: Path) -> nn.Module:
    """What maps tokens to states, float32, frozen, on the CPU. Raises `TextError` if the files lack a part of it, or
    have more in its layers.

    Attention is the plain one: where no row of a pass is padded the library would leave out the mask and so choose
    another kernel, and a caption's states would depend on those beside it.
    """
    with explained():
        library = pretrained.transformers()
        alone = (
            type(configuration(folder)) in library.MODEL_FOR_TEXT_ENCODING_MAPPING
        )  # BERT's kind, and T5's without its decoder
        kind = "AutoModelForTextEncoding" if alone else "AutoModel"
        net, said = pretrained.opened(kind, folder, use_safetensors=True, attn_implementation="eager")
    part = reader(net)
    inside = next(f"{name}." if name else "" for name, module in net.named_modules() if module is part)
    lacking = [key for key in said["missing_keys"] if key.startswith(inside) and not any(u in key for u in UNUSED)]
    wrong = [f"it lacks {name}" for name in sorted(lacking)]
    wrong += [
        f"its {key[0]} is of another shape" for key in sorted(said["mismatched_keys"]) if key[0].startswith(inside)
    ]
    lists = [f"{inside}{name}." for name, module in part.named_modules() if isinstance(module, nn.ModuleList)]
    lists += [f"{net.base_model_prefix}.{name}" for name in lists]  # as the file of a network with a head has them
    left_over = [key for key in said["unexpected_keys"] if key.startswith(tuple(lists))]
    wrong += [f"{name} has no place here" for name in sorted(left_over)]
    if wrong:
        raise TextError(
            f"{folder} does not hold the weights of a {type(net).__name__}: {some(wrong)}. Bring the whole repository."
        )
    if hasattr(part.config, "use_cache"):
        part.config.use_cache = False
    return part


def reader(net: Any) -> Any:
    """Of a whole network, the part that reads text."""
    if net.config.is_encoder_decoder:
        return net.get_encoder()
    return next((getattr(net, name) for name in TEXT_PARTS if hasattr(net, name)), net)
