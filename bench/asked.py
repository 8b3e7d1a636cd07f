"""Options that several benchmarks have: what a wrong value should have been is one sentence, before anything runs."""

import argparse

import torch

DEVICES = ("cpu", "cuda")


def add_device(parser: argparse.ArgumentParser) -> None:
    """--device, a GPU by default where there is one."""
    found = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument(
        "--device",
        type=device,
        default=found,
        metavar="|".join(DEVICES),
        help="what it runs on; here by default %(default)s",
    )


def device(name: str) -> str:
    if name not in DEVICES:
        raise argparse.ArgumentTypeError(f"{name!r} is no device: choose from {', '.join(DEVICES)}.")
    if name == "cuda" and not torch.cuda.is_available():
        raise argparse.ArgumentTypeError("cuda needs a GPU that torch finds, and there is none here: choose cpu.")
    return name


def count(text: str) -> int:
    """1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a whole number from 1 on is wanted, and {text!r} is none.")
    return int(text)
