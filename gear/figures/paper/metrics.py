"""How metrics are called, and which way each is better."""

from gear.train.lines import better

NAMES = {
    "gfid": "gFID", "sfid": "sFID", "inception_score": "Inception Score", "precision": "Precision", "recall": "Recall",
    "kid": "KID", "fdd": "FDD", "density": "Density", "coverage": "Coverage", "mmd": "MMD", "fid": "FID",
    "clip_score": "CLIP score", "overall": "Overall", "rfid": "rFID", "psnr": "PSNR, dB", "ssim": "SSIM",
    "ssim_gaussian": "SSIM (Gaussian)", "l1": "L1", "lpips": "LPIPS", "single_object": "Single object",
    "two_object": "Two objects", "counting": "Counting", "colors": "Colours", "position": "Position",
    "color_attribution": "Colour attribution", "global": "Global", "entity": "Entity", "attribute": "Attribute",
    "relation": "Relation", "other": "Other",
}  # fmt: skip
PROBED = {
    "pre": "pre-quantization", "post": "post-quantization", "cka": "CKA", "cknna": "CKNNA",
    "cka_unbiased": "CKA, unbiased", "natural": "hard indices", "soft": "soft assignment", "entropy": "Entropy, nats",
    "effective_size": "Effective size", "dead": "Dead", "top1": "Top-1 mass", "top10": "Top-10 mass",
    "top100": "Top-100 mass", "top1000": "Top-1000 mass",
}  # fmt: skip
JUDGED = tuple(NAMES)[tuple(NAMES).index("single_object") :]  # shares of prompts that are met
SIGN = dict.fromkeys(("density", "coverage", "clip_score", "overall", *JUDGED), 1) | dict.fromkeys(
    ("fdd", "mmd", "kid"), -1
)
ARROWS = {1: "↑", -1: "↓", 0: ""}


def called(name: str) -> str:
    """gFID; of a probe's "pre.image.cka" CKA, image, pre-quantization."""
    first, *parts = reversed(name.split("."))
    return ", ".join([NAMES.get(name) or PROBED.get(first, first), *(PROBED.get(part, part) for part in parts)])


def direction(name: str) -> int:
    """1: the larger the better, -1: the smaller, 0: neither is known."""
    return 0 if "." in name else SIGN.get(name) or better(name)
