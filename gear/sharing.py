"""Models as folders and Hugging Face repositories: config.json, model.safetensors, and a model card.

`from_pretrained`, `save_pretrained` and `push_to_hub` are huggingface_hub's; here is what they store. A model says what
it is made of by `settings`, and is made again by `from_settings`.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from huggingface_hub import ModelCard, ModelCardData, ModelHubMixin, constants
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from gear.store.card import CARD, rows, said
from gear.store.foreign import UnreadableFile, first_line
from gear.store.hub import HubError, fetched
from gear.store.saving import save_safetensors
from gear.store.strict import faults, not_finite, some
from gear.store.torch_file import read_safetensors
from gear.store.whole import explained, replacing

FORMAT, CONFIG, MODEL = "gear-model-1", constants.CONFIG_NAME, constants.SAFETENSORS_SINGLE_FILE
LARGEST = 1 << 24  # of any number in the settings of a model
PUSHED = "pushed"  # among a card's arguments: the folder's last two names are the repository's


class ModelError(ValueError):
    """A folder or repository that is not a model of this kind: what was expected, what came."""


def about(folder: Path) -> tuple[str, dict[str, Any]]:
    """Which kind of model `save_pretrained` put there, and its settings. Raises `ModelError` and OSError."""
    try:
        found = json.loads((folder / CONFIG).read_text())
        if found["format"] != FORMAT:
            raise KeyError(FORMAT)
        return found["kind"], found["settings"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ModelError(f"{folder / CONFIG} does not describe a model that gear saved.") from None


def tensors_in(file: Path) -> dict[str, Tensor]:
    """What `save_pretrained` put there, all of it finite. Raises `ModelError`."""
    try:
        tensors, _ = read_safetensors(file)
    except UnreadableFile as error:
        raise ModelError(str(error)) from error
    if name := not_finite(tensors):
        raise ModelError(f"{file} cannot be used: {name} has NaN or infinity, so its training has diverged.")
    return tensors


def require_own(folder: Path, kind: str) -> None:
    """Before a model of this kind is saved there. Raises `ModelError` where config.json is something else's, a run's or
    another model's, which would be lost."""
    if (folder / CONFIG).exists():
        try:
            found = about(folder)[0]
        except (ModelError, OSError):
            found = "something else"
        if found != kind:
            raise ModelError(
                f"{folder / CONFIG} is of {found} and would be replaced by that of a {kind}: give another folder."
            )


@contextmanager
def no_larger_than(tensors: Mapping[str, Tensor], settings: Any, source: object) -> Iterator[None]:
    """For making a network of the `settings` that `source` holds, whose weights are `tensors`: one of many more is
    given up at once, before it is filled. Raises `ModelError`, also for sizes of which none can be made."""
    if (largest := max(_whole_numbers(settings), default=0)) > LARGEST:
        raise ModelError(f"{source} describes a network with a size of {largest:.0e}, which none has.")
    left = [2 * len(tensors) + 64, 2 * sum(t.numel() for t in tensors.values()) + (1 << 20)]  # a layer may be remade

    def count(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
        left[0], left[1] = left[0] - 1, left[1] - parameter.numel()
        if min(left) < 0:
            raise ModelError(f"{source} describes a larger network than its {len(tensors)} tensors are.")

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    except ModelError:
        raise
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise ModelError(f"{source} describes a network that cannot be made: {first_line(error)}.") from error
    finally:
        handle.remove()


def _from_hub(source: str, name: str, **options: Any) -> Path:
    try:
        return fetched(source, name, **options)
    except HubError as error:
        raise ModelError(
            f"there is no folder {source} here, and {error}. Give a folder that save_pretrained or `gear export` "
            "wrote, or a repository that push_to_hub made."
        ) from error


def _whole_numbers(settings: Any) -> Iterator[int]:
    match settings:
        case dict():
            for value in settings.values():
                yield from _whole_numbers(value)
        case list() | tuple():
            for value in settings:
                yield from _whole_numbers(value)
        case int():
            yield settings


M = TypeVar("M", bound="Shared")


class Shared(ModelHubMixin, library_name="gear", model_card_template=CARD, tags=["gear"]):
    """Mixin for an `nn.Module` with `settings() -> dict` (as JSON has them) and `from_settings(dict)`."""

    card: Mapping[str, str] = MappingProxyType({})  # what `save_pretrained` was told, and keeps in config.json

    def settings(self) -> dict[str, Any]:
        raise NotImplementedError

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> Any:
        raise NotImplementedError

    def usage(self) -> str:
        """Further lines of Python on the card, after `model` was loaded; "" for none."""
        return ""

    def hub_tags(self) -> dict[str, Any]:
        """Entries of the card's header that this model has and others of its class have not."""
        return {}

    def save_pretrained(
        self, save_directory: str | Path, *, model_card_kwargs: dict[str, Any] | None = None, **options: Any
    ) -> str | None:
        """Writes the folder. `model_card_kwargs` may give the card's `title`, `about`, `training` and `license` (of the
        hub's identifiers, as "mit"; by default there is none); these are kept with the model. `options` are
        huggingface_hub's. Raises `ModelError` for a folder of something else (`require_own`), and `WriteError`."""
        folder, told = Path(save_directory), dict(model_card_kwargs or {})
        require_own(folder, type(self).__name__)
        names = folder.resolve().parts[-2 if told.pop(PUSHED, False) else -1 :]
        self.card = {**self.card, **said(told)}
        told = {**self.card, **told, "source": "/".join(names)}
        with explained(folder / CONFIG):
            return super().save_pretrained(folder, model_card_kwargs=told, **options)

    def push_to_hub(self, repo_id: str, *, model_card_kwargs: dict[str, Any] | None = None, **options: Any) -> str:
        """Saves to a repository. `model_card_kwargs` as of `save_pretrained`; `options` are huggingface_hub's."""
        told = {**(model_card_kwargs or {}), PUSHED: True}
        return super().push_to_hub(repo_id, model_card_kwargs=told, **options)

    def _save_pretrained(self, save_directory: Path) -> None:
        assert isinstance(self, nn.Module)
        described = {
            "format": FORMAT,
            "kind": type(self).__name__,
            "settings": self.settings(),
            "card": dict(self.card),
        }
        tensors = {name: t.detach().contiguous() for name, t in self.state_dict().items()}
        save_safetensors(save_directory / MODEL, tensors, {"format": "pt"})
        with replacing(save_directory / CONFIG) as temporary:
            temporary.write_text(json.dumps(described, indent=2) + "\n")

    @classmethod
    def from_pretrained(cls: type[M], pretrained_model_name_or_path: str | Path, **options: Any) -> M:
        """The model in a folder of `save_pretrained` or a repository of the hub. `options` are huggingface_hub's:
        revision, cache_dir, force_download, local_files_only, token. In evaluation mode, on the CPU.

        Raises `ModelError`, also where there is neither folder nor repository, or no connection.
        """
        source = Path(pretrained_model_name_or_path)
        if source.is_file():
            raise ModelError(
                f"{source} is a file, and a folder of save_pretrained or a repository is needed: "
                f"{cls.__name__}.from_released reads the public files."
            )
        if not source.is_dir():
            _from_hub(str(source), CONFIG, **options)  # which says what is wrong; huggingface_hub would not always
        elif (source / CONFIG).exists():
            about(source)  # the same
        return super().from_pretrained(source, **options)

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        config: dict[str, Any] | None = None,
        **model_kwargs: Any,
    ) -> Any:
        """Strict: every tensor in its shape, and no other. In evaluation mode, on the CPU. Raises `ModelError`."""
        found = config or {}
        if found.get("format") != FORMAT or found.get("kind") != cls.__name__:
            came = found.get("kind", "a model of another library" if config else "no config.json")
            raise ModelError(f"{model_id} must hold a {cls.__name__} that gear saved; it holds {came}.")
        if Path(model_id).is_dir():
            file = Path(model_id) / MODEL
        else:
            options = {"revision": revision, "cache_dir": cache_dir, "force_download": force_download, "token": token}
            file = _from_hub(model_id, MODEL, local_files_only=local_files_only, **options)
        tensors = tensors_in(file)
        settings = found.get("settings")
        if not isinstance(settings, dict):
            raise ModelError(f"the {CONFIG} of {model_id} does not describe a model that gear saved.")
        with no_larger_than(tensors, settings, model_id):
            model = cls.from_settings(settings)
        if wrong := faults(tensors, model.state_dict()):
            raise ModelError(f"{file} does not fit its config.json: {some(wrong)}.")
        model.load_state_dict(tensors)
        model.card = said(found.get("card"))
        return model.eval()

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """The card that `save_pretrained` writes, from its `model_card_kwargs`."""
        assert isinstance(self, nn.Module)
        kind, info = type(self).__name__, self._hub_mixin_info
        card = {
            "kind": kind,
            "title": f"{kind} of gear",
            "about": (type(self).__doc__ or "").split("\n\n")[0].strip(),
            "training": "",
            "usage": self.usage(),
            "source": "folder or hub id",
            "parameters": f"{sum(p.numel() for p in self.parameters()):,}",
            "settings": rows(self.settings()),
        } | kwargs
        data = {**info.model_card_data.to_dict(), **self.hub_tags(), "license": card.pop("license", None)}
        return ModelCard.from_template(ModelCardData(**data), template_str=info.model_card_template, **card)
