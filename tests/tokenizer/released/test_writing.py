"""What is written is what the other code bases look up, and reads back bit for bit."""

import resource
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gear.store.whole import WriteError
from gear.tokenizer.released import Layout, ReleasedError, read, write

PLACES: list[tuple[Layout, str]] = [
    ("llamagen", "VQ-16"),
    ("llamagen", "VQ-8"),
    ("lightning", "LFQ-16"),
    ("lightning", "IBQ-16"),
    ("gear", "VQ-8"),
    ("gear", "IBQ-16"),
    ("bare", "LFQ-16"),
]


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "tokenizer.pt"


@pytest.mark.parametrize("with_average", [True, False])
@pytest.mark.parametrize(("layout", "family"), PLACES)
def test_reads_back(small, path: Path, layout: Layout, family: str, with_average: bool) -> None:
    live, mean = small.tokenizer(family), small.tokenizer(family, seed=1)
    mean = mean if with_average else None
    write(path, layout, live, family, averaged=mean, critic=small.critic(), families=small.families)
    best = read(path, families=small.families)
    assert (best.family, best.layout) == (family, layout)
    assert equal(best.tokenizer, mean or live)
    assert (best.critic is None) == (layout == "bare")
    assert best.critic is None or equal(best.critic, small.critic())
    last = read(path, families=small.families, averaged=False)
    assert equal(last.tokenizer, live if layout in ("gear", "lightning") else mean or live)
    assert best.averaged == (layout == "lightning" or (layout == "gear" and with_average))


def test_llamagen_gets_the_buffer_it_will_not_load_without(small, path: Path) -> None:
    write(path, "llamagen", small.tokenizer("VQ-16"), "VQ-16", families=small.families)
    saved = torch.load(path, weights_only=True)
    assert saved.keys() == {"model"}
    assert saved["model"].keys() == small.public("VQ-16").keys() | {"quantize.codebook_used"}
    assert torch.equal(saved["model"]["quantize.codebook_used"], torch.zeros(65536))


def test_gear_has_both_tokenizers_under_public_names(small, path: Path) -> None:
    mean = small.tokenizer("IBQ-16", seed=1)
    write(path, "gear", small.tokenizer("IBQ-16"), "IBQ-16", averaged=mean, families=small.families)
    saved = torch.load(path, weights_only=True)
    assert saved.keys() == {"vq", "vq_ema"}
    assert equal(saved["vq"], small.public("IBQ-16"))
    assert equal(saved["vq_ema"], small.public("IBQ-16", seed=1))


@pytest.mark.parametrize("family", ["LFQ-16", "IBQ-16"])
def test_lightning_is_what_the_trainer_would_write(small, path: Path, family: str) -> None:
    live, mean = small.tokenizer(family), small.tokenizer(family, seed=1)
    write(path, "lightning", live, family, averaged=mean, critic=small.critic(), families=small.families)
    inner = torch.load(path, weights_only=True)["state_dict"]
    theirs = small.lightning(family)["state_dict"]
    statistics = ("running_mean", "running_var", "num_batches_tracked")  # of batch normalisation: LitEma has none
    beside = {"loss.perceptual_loss.lin0.model.1.weight"}
    parameters = {k for k in theirs if not (k.startswith("model_ema.") and k.endswith(statistics))}
    assert inner.keys() == parameters - beside
    tokenizers = {k for k in theirs if "loss" not in k}
    assert all(torch.equal(inner[k], theirs[k]) and inner[k].dtype == theirs[k].dtype for k in tokenizers)
    names = list(inner)
    first_average = next(i for i, name in enumerate(names) if name.startswith("model_ema."))
    assert all(name.startswith("model_ema.") for name in names[first_average:])  # it is looked up in what came before


def test_only_the_tensors_themselves_are_stored(small, path: Path) -> None:
    """Views of something large, channels last, parameters, half precision: none of it reaches the file."""
    state = small.tokenizer("VQ-16")
    odd = {name: torch.nn.Parameter(torch.zeros(1000, *t.shape).half())[0] for name, t in state.items()}
    odd = {name: t.to(memory_format=torch.channels_last) if t.ndim == 4 else t for name, t in odd.items()}
    write(path, "bare", odd, "VQ-16", families=small.families)
    saved = torch.load(path, weights_only=True)
    assert all(t.dtype == torch.float32 and t.is_contiguous() and type(t) is Tensor for t in saved.values())
    assert path.stat().st_size < 4 * sum(t.numel() for t in state.values()) + 500 * len(state)


@pytest.mark.parametrize(
    ("layout", "family", "said"),
    [
        ("llamagen", "LFQ-16", "The layout llamagen is for VQ tokenizers, and LFQ-16 is none"),
        ("lightning", "VQ-8", "The layout lightning is for IBQ and LFQ tokenizers, and VQ-8 is none"),
        ("gear", "GLFQ-16", "There is no family 'GLFQ-16'; there are VQ-16, VQ-8, LFQ-16, IBQ-16"),
    ],
)
def test_a_layout_that_nobody_would_read_is_refused(small, path: Path, layout: Layout, family: str, said: str) -> None:
    with pytest.raises(ReleasedError, match=said):
        write(path, layout, {}, family, families=small.families)


def test_what_is_no_whole_tokenizer_is_not_written(small, path: Path) -> None:
    state = small.tokenizer("VQ-16")
    nan = state | {"quant_conv.bias": torch.full_like(state["quant_conv.bias"], torch.nan)}
    with pytest.raises(
        ReleasedError, match=r"The tokenizer for \S+ cannot be one of its family: its quant_conv.bias has NaN"
    ):
        write(path, "gear", nan, "VQ-16", families=small.families)
    with pytest.raises(
        ReleasedError, match=r"The averaged tokenizer for \S+ cannot .*: its quant_conv.bias has NaN or infinity"
    ):
        write(path, "gear", state, "VQ-16", averaged=nan, families=small.families)
    with pytest.raises(ReleasedError, match=r"The tokenizer for \S+ cannot be one of its family: .* has no place"):
        write(path, "gear", small.tokenizer("IBQ-16"), "VQ-16", families=small.families)
    critic = {name: t for name, t in small.critic().items() if name != "main.0.bias"}
    with pytest.raises(ReleasedError, match=r"The critic for \S+ is no PatchGAN: it lacks main.0.bias"):
        write(path, "gear", state, "VQ-16", critic=critic, families=small.families)
    assert not path.exists()


def test_a_full_disk_leaves_the_last_file(small, path: Path) -> None:
    write(path, "bare", small.tokenizer("VQ-16"), "VQ-16", families=small.families)
    before, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
        with pytest.raises(WriteError, match="could not be written"):
            write(path, "gear", small.tokenizer("VQ-16", seed=1), "VQ-16", families=small.families)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
