"""What the model card of a saved model says; huggingface_hub fills the template in."""

from collections.abc import Iterator, Mapping
from typing import Any

SAID = ("title", "about", "training", "license")  # what a card may be told; kept in config.json, for the next card
MANY = 16  # items of a list that a table still shows
CARD = """---
{{ card_data }}
---

# {{ title }}

{{ about }}

```python
from gear import {{ kind }}

model = {{ kind }}.from_pretrained("{{ source }}")
{% if usage %}{{ usage }}
{% endif %}```

| | |
|---|---|
| parameters | {{ parameters }} |
{% for name, value in settings.items() %}| {{ name }} | {{ value }} |
{% endfor %}
{{ training }}

GEAR: Guided End-to-End AutoRegression for Image Synthesis, 2026.
"""


def said(told: Any) -> dict[str, str]:
    """Of anything at all, what a card may be told."""
    return {k: told[k] for k in SAID if isinstance(told.get(k), str)} if isinstance(told, Mapping) else {}


def rows(settings: Mapping[str, Any]) -> dict[str, str]:
    """A row for every setting that has a value, those of an inner dictionary under "outer.inner"."""
    return {_cell(name): _cell(value) for name, value in _flat(settings) if value not in (None, "", [], ())}


def _flat(settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}.{key}", inner) for key, inner in _flat(value))
        else:
            yield name, value


def _cell(value: Any) -> str:
    if isinstance(value, list | tuple):
        value = f"{len(value):,}, in config.json" if len(value) > MANY else ", ".join(map(str, value))
    return " ".join(str(value).split()).replace("|", r"\|")
