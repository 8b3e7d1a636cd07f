"""Who answers the questions of our DPG-Bench: a network of transformers that takes an image and a question.

The official script asks mPLUG-large of modelscope; BLIP (Li et al. 2022), trained on the same questions, is the nearest
that transformers has, and the default. Vision-language models that chat are asked for one word.
"""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from gear.store import pretrained

BLIP = "Salesforce/blip-vqa-capfilt-large"
FILES = ("preprocessor_config.json", "tokenizer_config.json")
MORE = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "processor_config.json",
    "chat_template.json",
    "chat_template.jinja",
    "generation_config.json",
    "added_tokens.json",
    "tokenizer.model",
    "video_preprocessor_config.json",
)
WORDS = 10  # tokens of an answer at most
ONE_WORD = "{} Answer with one word, yes or no."


@runtime_checkable
class Judge(Protocol):
    """Answers questions about one image, in words."""

    def answers(self, pixels: UInt8[Tensor, "3 H W"], questions: Sequence[str]) -> list[str]: ...

    def about(self) -> dict[str, Any]: ...


def is_yes(answer: str) -> bool:
    """Whether the first word is yes. The official script wants "yes" and nothing else, which mPLUG and BLIP say."""
    return answer.strip().lower().split(" ")[0].strip(".,!;:'\"") == "yes"


def opened(model: str = BLIP, batch: int = 16, device: torch.device | None = None) -> Judge:
    """The judge for a folder of transformers' files or a name on the hub, by what its configuration says it is.

    Raises `PretrainedError` for a network that is neither BLIP for questions, nor ViLT for questions, nor a model that
    turns images and text into text.
    """
    place = pretrained.folder(model, FILES, MORE)
    library = pretrained.transformers()
    try:
        config = library.AutoConfig.from_pretrained(str(place), local_files_only=True)
        processor = library.AutoProcessor.from_pretrained(str(place), local_files_only=True)
    except (ValueError, OSError, ImportError, KeyError) as error:
        why = str(error).strip().splitlines()[0]
        raise pretrained.PretrainedError(f"{place} cannot be read as a model that answers questions: {why}") from error
    kinds = {"blip": ("BlipForQuestionAnswering", Writer), "vilt": ("ViltForQuestionAnswering", Chooser)}
    kind, cls = kinds.get(config.model_type, ("AutoModelForImageTextToText", Chatter))
    net = pretrained.load(kind, place)
    about = {"model": model, "kind": type(net).__name__, "sha256": pretrained.digests(place)}
    return cls(net.to(device or torch.device("cpu")), processor, batch, about)


class Chooser:
    """ViLT: the likeliest of the answers it knows."""

    def __init__(self, net: Any, processor: Any, batch: int, about: dict[str, Any]):
        self.net, self.processor, self.batch = net, processor, batch
        self.told = about | {"transformers": pretrained.transformers().__version__}

    def about(self) -> dict[str, Any]:
        return self.told

    @torch.no_grad()
    def answers(self, pixels: UInt8[Tensor, "3 H W"], questions: Sequence[str]) -> list[str]:
        image = Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy())
        said: list[str] = []
        for i in range(0, len(questions), self.batch):
            said += self.said(image, list(questions[i : i + self.batch]))
        return said

    def said(self, image: Image.Image, questions: list[str]) -> list[str]:
        names = self.net.config.id2label
        return [names[i] for i in self.net(**self.inputs(image, questions)).logits.argmax(-1).tolist()]

    def inputs(self, image: Image.Image, questions: list[str]) -> Any:
        options = {"return_tensors": "pt", "padding": True}
        return self.processor(images=[image] * len(questions), text=questions, **options).to(self.net.device)


class Writer(Chooser):
    """BLIP: writes the answer, greedily."""

    def said(self, image: Image.Image, questions: list[str]) -> list[str]:
        written = self.net.generate(**self.inputs(image, questions), max_new_tokens=WORDS, do_sample=False)
        return self.processor.batch_decode(written, skip_special_tokens=True)


class Chatter(Chooser):
    """A model that chats: one question a turn, each on its own, as prompts of unequal length need padding on the left
    that not every processor has."""

    def said(self, image: Image.Image, questions: list[str]) -> list[str]:
        return [self.one(image, question) for question in questions]

    def one(self, image: Image.Image, question: str) -> str:
        content = [{"type": "image", "image": image}, {"type": "text", "text": ONE_WORD.format(question)}]
        options = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"}
        inputs = self.processor.apply_chat_template([{"role": "user", "content": content}], **options)
        inputs = inputs.to(self.net.device)
        written = self.net.generate(**inputs, max_new_tokens=WORDS, do_sample=False)
        return self.processor.batch_decode(written[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)[0]
