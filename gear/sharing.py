"""Models as folders and Hugging Face repositories: config.json, model.safetensors, and a model card.

`from_pretrained`, `save_pretrained` and `push_to_hub` are huggingface_hub's; here is what they store. A model says what
it is made of by `settings`, and is made again by `from_settings`.
"""

import json
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelHubMixin, constants, hf_hub_download
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from gear.store.whole import replacing

FORMAT, CONFIG, MODEL = "gear-model-1", constants.CONFIG_NAME, constants.SAFETENSORS_SINGLE_FILE
CARD = """---
{{ card_data }}
---

# {{ title }}

{{ about }}

```python
from gear import {{ kind }}

model = {{ kind }}.from_pretrained("REPOSITORY")
```

| | |
|---|---|
| parameters | {{ parameters }} |
{% for name, value in settings.items() %}| {{ name }} | {{ value }} |
{% endfor %}
{{ training }}

GEAR: Guided End-to-End AutoRegression for Image Synthesis, 2026.
"""


class ModelError(ValueError):
    """A folder or repository that is not a model of this kind: what was expected, what came."""


def about(folder: Path) -> tuple[str, dict[str, Any]]:
    """Which kind of model `save_pretrained` put there, and its settings. Raises `ModelError` and OSError."""
    try:
        found = json.loads((folder / CONFIG).read_text())
        if found["format"] != FORMAT:
            raise KeyError(FORMAT)
        return found["kind"], found["settings"]
    except (ValueError, KeyError, TypeError):
        raise ModelError(f"{folder / CONFIG} does not describe a model that gear saved.") from None


class Shared(ModelHubMixin, library_name="gear", model_card_template=CARD, tags=["gear"]):
    """Mixin for an `nn.Module` with `settings() -> dict` (as JSON has them) and `from_settings(dict)`."""

    def settings(self) -> dict[str, Any]:
        raise NotImplementedError

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> Any:
        raise NotImplementedError

    def _save_pretrained(self, save_directory: Path) -> None:
        assert isinstance(self, nn.Module)
        described = {"format": FORMAT, "kind": type(self).__name__, "settings": self.settings()}
        tensors = {name: t.detach().contiguous() for name, t in self.state_dict().items()}
        with replacing(save_directory / MODEL) as temporary:
            save_file(tensors, temporary, {"format": "pt"})
            temporary.chmod(0o644)  # safetensors makes it the owner's alone
        with replacing(save_directory / CONFIG) as temporary:
            temporary.write_text(json.dumps(described, indent=2) + "\n")

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
            file = Path(hf_hub_download(model_id, MODEL, local_files_only=local_files_only, **options))
        try:
            tensors = load_file(file)
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{file} is not a whole safetensors file ({error}); save or download it again.") from None
        model = cls.from_settings(found["settings"])
        own = model.state_dict()
        for name in sorted(own.keys() | tensors.keys()):
            if name not in tensors or name not in own:
                raise ModelError(f"{file} does not fit its config.json: {name} is only in one of them.")
            if own[name].shape != tensors[name].shape:
                shapes = f"{tuple(tensors[name].shape)}, and should be {tuple(own[name].shape)}"
                raise ModelError(f"{file} does not fit its config.json: {name} is {shapes}.")
        model.load_state_dict(tensors)
        return model.eval()

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """The card that `save_pretrained` writes; `model_card_kwargs` may give `title`, `about` and `training`."""
        assert isinstance(self, nn.Module)
        kind = type(self).__name__
        settings = {
            f"{name}.{key}".rstrip("."): v
            for name, value in self.settings().items()
            for key, v in (value.items() if isinstance(value, dict) else [("", value)])
        }
        said = (type(self).__doc__ or "").split("\n\n")[0].strip()
        count = f"{sum(p.numel() for p in self.parameters()):,}"
        card = {"kind": kind, "settings": settings, "parameters": count, "title": f"{kind} of gear", "about": said}
        return super().generate_model_card(*args, **(card | {"training": ""} | kwargs))
