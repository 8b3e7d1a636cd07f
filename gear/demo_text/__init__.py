"""`gear demo --text`."""

from gear.demo_text.flow import demo_text

__all__ = ["demo_text"]
