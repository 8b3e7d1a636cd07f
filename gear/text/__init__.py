"""Text encoders: captions as states of a frozen language model, the condition c of eq. 4 where it is text."""

from gear.text.encoder import TextEncoder, load
from gear.text.files import TextError, digests, require

__all__ = ["TextEncoder", "TextError", "digests", "load", "require"]
