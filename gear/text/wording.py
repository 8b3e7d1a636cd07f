"""What is said of prompts before images are drawn: those that cannot be, and those that the encoder reads in part."""

import logging
from collections.abc import Collection, Sequence

from gear.text.encoder import LONE, TextEncoder

SHOWN = 60  # letters of a prompt in a message

log = logging.getLogger("gear")


def require_whole(name: str, texts: Sequence[str]) -> None:
    """Raises ValueError for halves of characters, which Python makes of an argument that is not UTF-8. name: the
    argument."""
    if bad := [text for text in texts if LONE.search(text)]:
        raise ValueError(f"{name} {bad[0][:SHOWN]!r} is not UTF-8: give it from a terminal or script that uses UTF-8.")


def check(encoder: TextEncoder, texts: Sequence[str], negative: str | None = None, guided: bool = True) -> None:
    """Says which texts have no word that the encoder knows, how many tokens of too long ones are cut, and where a
    negative one does nothing. guided: whether guidance acts. Raises ValueError for none, and for one without words."""
    if not texts:
        raise ValueError("give at least one prompt.")
    lengths, nothing = encoder.lengths(texts), encoder.lengths([""])[0]
    for i, (text, length) in enumerate(zip(texts, lengths, strict=True)):
        if not text.strip() or length <= nothing:
            raise ValueError(
                f"prompt {i + 1} of {len(texts)} has no words ({text[:40]!r}): say what to draw; any prompt with "
                "--cfg-scale 0 draws as if there were none."
            )
    given = [*texts, negative] if negative else [*texts]
    lengths += encoder.lengths([negative]) if negative else []
    sizes = dict(zip(given, lengths, strict=True))
    if strange := [text for text, known in zip(given, encoder.known(given), strict=True) if not known]:
        strange = [text for text in dict.fromkeys(strange) if sizes[text] > nothing]
    if strange:
        has, first = ("has", "") if len(strange) == 1 else ("have", "the first is ")
        told = f"{has} no word that the text encoder knows: {first}{_short(strange[0])}; say it in words"
        log.warning("warning: %s %s.", _of(strange, sizes), told)
    if cut := {text: length for text, length in sizes.items() if length > encoder.tokens}:
        text = max(cut, key=lambda text: cut[text])
        many, first = ("is", "it") if len(cut) == 1 else ("are", "the longest")
        told = f"{many} too long: {first} is cut to {encoder.tokens} of its {cut[text]} tokens: {_short(text)}"
        log.warning("warning: %s %s.", _of(cut, sizes), told)
    if negative and negative.strip() and not guided:
        log.warning("warning: the negative prompt does nothing without guidance: give a --cfg-scale other than 1.")


def _of(some: Collection[str], of: Collection[str]) -> str:
    return f"{len(some)} of {len(of)} prompts"


def _short(text: str) -> str:
    return repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}...")
