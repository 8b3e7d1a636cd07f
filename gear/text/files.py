"""The files of a text encoder: where they are, whether they are whole, and that none of them brings code of its own.

An encoder is "qwen3-1.7b" (the paper's), "minilm" (from a package, for machines without a model hub), the name of a
repository on the hub, or a folder of such a repository. Weights are read from safetensors only.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gear import weights
from gear.config import Text
from gear.store import pretrained
from gear.store.foreign import first_line
from gear.store.hub import HubError
from gear.store.networks import ON_THE_HUB
from gear.store.packages import sha256
from gear.store.pretrained import CONFIG, PretrainedError
from gear.store.torch_file import UnreadableFile, read_safetensors

PACKAGED = ("minilm",)  # of `gear fetch`
SAFETENSORS = ("model.safetensors", "model.safetensors.index.json")  # best first
SETTINGS = "tokenizer_config.json"
VOCABULARIES = (
    "tokenizer.json",
    "vocab.json",
    "vocab.txt",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
)
TOKENIZER = (*VOCABULARIES, SETTINGS, "special_tokens_map.json", "added_tokens.json", "merges.txt")
POSITIONS = "max_position_embeddings"
PARTS = ("text_config", "encoder")  # of a configuration, that have one of their own


class TextError(OSError):
    """A text encoder that cannot be had, read or used: why, and what to do."""


@contextmanager
def explained() -> Iterator[None]:
    """Turns what is said of absent and unreadable files into a `TextError`."""
    try:
        yield
    except (PretrainedError, weights.MissingWeight, UnreadableFile) as error:
        hint = " Or take minilm, which `gear fetch minilm` brings from a package." if _not_on_hub(error) else ""
        raise TextError(f"The text encoder cannot be used: {error}{hint}") from error


def place(encoder: str) -> Path:
    """The folder of an encoder's files, which are fetched from the hub if they are not here. Raises `TextError`.

    Its configuration is looked at before anything large is fetched: remote code is refused first.
    """
    with explained():
        if encoder in PACKAGED:
            return weights.path(encoder).parent
        model = ON_THE_HUB.get(encoder, encoder)
        refuse_code(pretrained.folder(model, optional=(SETTINGS,), weights=()))
        folder = pretrained.folder(model, optional=TOKENIZER, weights=SAFETENSORS)
    if not any((folder / name).is_file() for name in VOCABULARIES):
        raise TextError(
            f"The text encoder in {folder} has no tokenizer: {' or '.join(VOCABULARIES)} is needed beside its weights. "
            "Bring the whole repository."
        )
    return folder


def refuse_code(folder: Path) -> None:
    """Raises `TextError` if a network or tokenizer needs code that comes with it, or is none of transformers'."""
    settings = _json(folder / CONFIG)
    kind = settings.get("model_type")
    advice = (
        "Code of a repository (remote code) is never run here: choose an encoder that the library transformers has "
        "itself, such as qwen3-1.7b, minilm or google/t5-v1_1-base."
    )
    for name, found in ((CONFIG, settings), (SETTINGS, _json(folder / SETTINGS))):
        if "auto_map" in found:
            raise TextError(f"The text encoder in {folder} asks for code of its own (auto_map in {name}). {advice}")
    with explained():
        library = pretrained.transformers()
    if kind not in library.CONFIG_MAPPING:
        raise TextError(
            f"The text encoder in {folder} is of the type {kind!r}, which transformers {library.__version__} does not "
            f"know; a newer one may. {advice}"
        )


def require(text: Text) -> None:
    """Looks for all that encoding needs, before the long work; what the hub has is fetched.

    Raises `TextError`: no library, no files, damaged ones, code of their own, or fewer positions than `text.tokens`.
    """
    folder = place(text.encoder)
    with explained():
        for file in weight_files(folder):
            read_safetensors(file, lambda _: False)
    tokenizer(folder, text.tokens)


def tokenizer(folder: Path, tokens: int) -> Any:
    """The tokenizer of transformers in a folder, which cuts from behind. Raises `TextError`, also where `tokens` are
    more than the network has positions, or too few for one word between its special tokens."""
    with explained():
        library = pretrained.transformers()
    try:
        found = library.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        found.truncation_side = "right"
        special = len(found("", verbose=False)["input_ids"])
    except Exception as error:  # of a damaged file: json's, the tokenizers library's and transformers' own
        raise TextError(f"The tokenizer in {folder} cannot be read: {first_line(error)}.") from error
    most = min(positions(configuration(folder)), found.model_max_length)
    if tokens > most:
        raise TextError(
            f"The text encoder in {folder} reads at most {most} tokens, and generator.text.tokens is {tokens}: "
            f"set it to {most} or less."
        )
    if tokens <= special:
        raise TextError(
            f"The text encoder in {folder} puts {special} special tokens around a caption, so "
            f"generator.text.tokens must be at least {special + 1}; it is {tokens}."
        )
    if not special and found.eos_token_id is None:
        raise TextError(
            f"The tokenizer in {folder} has neither special tokens nor one for the end of a text, so that nothing can "
            "stand for no caption: choose another text encoder."
        )
    return found


def configuration(folder: Path) -> Any:
    """The configuration of a network, as transformers has it. Raises `TextError`."""
    with explained():
        library = pretrained.transformers()
    try:
        return library.AutoConfig.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # of wrong fields: several
        raise TextError(f"{folder / CONFIG} cannot be read: {first_line(error)}. Bring it again.") from error


def positions(config: Any) -> int | float:
    """How many tokens a network reads, by its configuration or that of its text part; infinity where nothing limits
    them, as with T5's relative positions."""
    found = [getattr(part, POSITIONS, None) for part in (config, *(getattr(config, name, None) for name in PARTS))]
    return min((number for number in found if isinstance(number, int)), default=float("inf"))


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a network, one or several. Raises `TextError` where one of several is absent."""
    whole, index = (folder / name for name in SAFETENSORS)
    if whole.is_file():
        return [whole]
    try:
        files = [folder / Path(name).name for name in pretrained.parts(index)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TextError(f"{index} is no index of weights: {first_line(error)}. Bring it again.") from error
    if lacking := [file.name for file in files if not file.is_file()]:
        raise TextError(f"The text encoder in {folder} lacks {', '.join(lacking)}: bring the whole repository.")
    return files


def digests(text: Text) -> str:
    """One sha256 over those of an encoder's files: configuration, weights and tokenizer. Raises `TextError`.

    All weights are read, which takes seconds for each 10 GB: ask once.
    """
    folder = place(text.encoder)
    files = [*weight_files(folder), *(folder / name for name in (CONFIG, *TOKENIZER) if (folder / name).is_file())]
    lines = [f"{sha256(file)}  {file.name}\n" for file in sorted(files, key=lambda file: file.name)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _not_on_hub(error: Exception) -> bool:
    return isinstance(error.__cause__, HubError)


def _json(file: Path) -> dict[str, Any]:
    """The object in a file; nothing where there is no file. Raises `TextError`."""
    if not file.is_file():
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TextError(f"{file} is not JSON: {first_line(error)}. Bring it again.") from error
    if not isinstance(found, dict):
        raise TextError(f"{file} holds no settings of transformers, but a {type(found).__name__}. Bring it again.")
    return found
