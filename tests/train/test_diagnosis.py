"""Which module broke first, on the real step; that looking leaves no trace; and the batch that is kept."""

import dataclasses
import gc
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules import module as every_module

from gear import build
from gear.config import Config, Frozen, Naive, Warmup
from gear.step import Batch, Encoded, Step
from gear.store.foreign import UnreadableFile
from gear.store.saving import save_safetensors
from gear.store.whole import WriteError
from gear.train.diagnosis import Diagnosis, diagnose, load_batch, save_batch, sentence
from gear.train.loop import seed

TARGET = "efficientnet_lite0"


class World:
    """A real `Training` of `tiny`, on random images and features."""

    def __init__(self, config: Config):
        self.training = build.training(config, 2, {TARGET: 112}, torch.device("cpu"))
        self.groups = {group.name: group for group in self.training.groups}
        c = torch.tensor([0, 1, 1])
        self.batch = Batch(torch.rand(3, 3, 32, 32) * 2 - 1, c, {TARGET: torch.randn(3, 16, 112)})
        self.encoded = Encoded(torch.randint(16, (3, 16)), c, self.batch.f)

    def module(self, name: str) -> Any:
        group, _, rest = name.partition(".")
        return self.groups[group].module.get_submodule(rest)

    def poison(self, parameter: str, value: float) -> None:
        module, _, name = parameter.rpartition(".")
        tensor = getattr(self.module(module), name).data
        tensor[(0,) * tensor.dim()] = value

    def step(self, batch: Any) -> Step:
        seed(0, 0)
        return self.training.step(batch)

    def diagnose(self, batch: Batch | Encoded | None = None) -> Diagnosis:
        return diagnose(self.training.groups, self.training.step, batch or self.batch, lambda: seed(0, 0))

    def tensors(self) -> dict[str, Tensor]:
        """Whatever a step may move, without an optimiser's moments that are not there yet."""
        held = {f"{n}.{k}": t for n, g in self.groups.items() for k, t in (*g.named_parameters(), *g.named_buffers())}
        for name, group in self.groups.items():
            for i, state in group.optimizer.state_dict()["state"].items():
                held |= {f"{name}_optimizer.{i}.{k}": t for k, t in state.items()}
        return held

    def bits(self) -> dict[str, bytes]:
        """Of which NaN equals itself."""
        return {name: t.detach().contiguous().numpy().tobytes() for name, t in self.tensors().items()}


@pytest.fixture
def world(tiny: Config) -> World:
    return World(tiny)


# ------------------------------------------------------------------------------------------------ what is found


@pytest.mark.parametrize(
    ("module", "value", "term", "soft"),
    [
        ("tokenizer.encoder.conv_in", torch.nan, "reconstruction", True),
        ("tokenizer.encoder.conv_blocks.0.downsample.conv", torch.inf, "reconstruction", True),
        ("tokenizer.quant_conv", torch.nan, "reconstruction", True),
        ("tokenizer.quantize", torch.nan, "reconstruction", True),
        ("tokenizer.decoder.mid.2.conv1", torch.nan, "reconstruction", False),
        ("critic.main.2", torch.inf, "adversarial", False),
        ("generator.layers.0.attention.wqkv", torch.nan, "ntp", True),
        ("generator.layers.0.ffn_norm", torch.inf, "ntp", True),
        ("generator.layers.1.feed_forward.w2", torch.nan, "ntp", False),  # above the tap
        (f"generator.projectors.{TARGET}.2", torch.nan, "align_hard", True),
    ],
)
def test_a_poisoned_weight_is_found_in_its_module(
    world: World, module: str, value: float, term: str, soft: bool
) -> None:
    weight = f"{module}.embedding.weight" if module.endswith("quantize") else f"{module}.weight"
    world.poison(weight, value)
    found = world.diagnose()
    assert (found.module, found.term, found.weight, found.where) == (module, term, weight, "weights")
    assert (found.batch, found.gradient) == (None, None)  # gradients that are not finite follow from it
    assert ("align_soft" in found.terms) == soft


def test_a_sound_step(world: World) -> None:
    assert world.diagnose() == Diagnosis((), None, None, None, None)
    assert world.diagnose().where == "nowhere"


@pytest.mark.parametrize(
    ("module", "term"),
    [
        ("tokenizer.decoder.conv_out", "reconstruction"),
        ("generator.layers.0.attention.wqkv", "ntp"),
        ("generator.layers.1.attention.wqkv", "ntp"),
    ],
)
def test_finite_weights_whose_product_overflows(world: World, module: str, term: str) -> None:
    world.module(module).weight.data.fill_(3e38)
    found = world.diagnose()
    assert (found.module, found.term, found.weight, found.where) == (module, term, None, "forward")


def test_an_embedding_that_only_the_soft_branch_reads(world: World) -> None:
    """It is no module there. Images of one colour use few codewords, so that the hard branch does not come by it."""
    batch = replace(world.batch, x=torch.zeros(3, 3, 32, 32))
    unused = set(range(16)) - set(world.module("tokenizer").encode(batch.x).flatten().tolist())
    world.module("generator.tok_embeddings").weight.data[min(unused)] = torch.nan
    found = world.diagnose(batch)
    assert (found.term, found.module, found.weight) == ("align_soft", None, "generator.tok_embeddings.weight")
    assert "ntp" not in found.terms


def test_a_network_that_no_group_holds(world: World) -> None:
    next(world.training.fixed[0].parameters()).data.fill_(torch.nan)
    found = world.diagnose()
    assert (found.term, found.where) == ("perceptual", "forward")
    assert found.module is not None
    assert found.module.startswith("Perceptual.")


def test_a_loss_outside_modules(world: World) -> None:
    """Scores that are finite, but whose mean is larger than the largest float32."""
    world.module("critic").register_forward_hook(lambda *given: given[-1] * 0 + 3e38)
    found = world.diagnose()
    assert (found.term, found.module, found.where) == ("adversarial", None, "loss")


def test_a_loss_that_the_head_makes(world: World) -> None:
    """States that are finite, but whose logits are further apart than the largest float32."""
    world.poison("generator.output.weight", 3e38)
    world.module("generator.norm").register_forward_hook(lambda *given: given[-1] * 0 + 10)
    found = world.diagnose()
    assert (found.term, found.module, found.where) == ("ntp", "generator.output", "forward")


@pytest.mark.parametrize("value", [torch.nan, -torch.inf])
@pytest.mark.parametrize(("part", "term"), [("x", "reconstruction"), (f"f.{TARGET}", "align_hard")])
def test_a_poisoned_batch_is_blamed(world: World, part: str, term: str, value: float) -> None:
    x, f = world.batch.x, world.batch.f[TARGET]
    (x if part == "x" else f)[2, 1, 5] = value
    found = world.diagnose()
    assert (found.batch, found.where, found.term, found.weight) == (part, "batch", term, None)


def test_stored_codes(tiny: Config) -> None:
    world = World(replace(tiny, stage=Frozen(), data=replace(tiny.data, codes="codes")))
    assert world.diagnose(world.encoded).where == "nowhere"
    world.poison("generator.output.weight", torch.inf)
    assert world.diagnose(world.encoded).module == "generator.output"
    world.encoded.f[TARGET][0, 0, 0] = torch.nan
    assert world.diagnose(world.encoded).batch == f"f.{TARGET}"


@pytest.mark.parametrize("stage", [Warmup(), Frozen(), Naive()])
def test_every_stage(tiny: Config, stage: Any) -> None:
    world = World(replace(tiny, stage=stage))
    assert world.diagnose().where == "nowhere"
    world.poison("tokenizer.encoder.conv_in.weight", torch.nan)
    assert world.diagnose().module == "tokenizer.encoder.conv_in"


def test_a_gradient_that_a_hook_spoils(world: World) -> None:
    name = "generator.layers.1.ffn_norm.weight"
    world.module("generator.layers.1.ffn_norm").weight.register_hook(lambda grad: grad * torch.nan)
    found = world.diagnose()
    assert (found.gradient, found.module, found.weight) == (name, None, None)
    assert (found.terms, found.where) == (("grad_generator",), "backward")


class SpoiltBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return grad / 0


def test_a_backward_pass_that_gives_infinity(world: World) -> None:
    world.module("tokenizer.decoder.mid").register_forward_hook(lambda *given: SpoiltBackward.apply(given[-1]))
    found = world.diagnose()
    assert (found.terms, found.module) == (("grad_tokenizer",), None)
    assert found.gradient is not None
    assert found.gradient.startswith("tokenizer.decoder.mid.2.")  # the last residual block of it


def test_a_norm_that_overflows(world: World) -> None:
    world.module("generator.norm").weight.register_hook(lambda grad: torch.full_like(grad, 1e30))
    found = world.diagnose()
    assert (found.terms, found.gradient, found.where) == (("grad_generator",), None, "norm")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # torch's, of its own compiler
def test_modules_that_are_compiled(world: World) -> None:
    """No hook fires in a compiled module. The backend only has to be one."""
    for layer in world.module("generator.layers"):
        layer.compile(backend="eager")
    world.poison("generator.layers.1.attention.wo.weight", torch.nan)
    assert world.diagnose().module == "generator.layers.1.attention.wo"


# ------------------------------------------------------------------------------------------------ no trace


def spoil_nothing(world: World) -> None:
    pass


def spoil_batch(world: World) -> None:
    world.batch.x[0] = torch.nan


def spoil_weight(world: World) -> None:
    world.poison("tokenizer.encoder.conv_in.weight", torch.nan)


@pytest.mark.parametrize("done", [0, 2])
@pytest.mark.parametrize("spoil", [spoil_nothing, spoil_batch, spoil_weight])
def test_every_tensor_is_bit_for_bit_what_it_was(world: World, done: int, spoil: Callable[[World], None]) -> None:
    for _ in range(done):
        world.step(world.batch)
    spoil(world)
    before, held = world.bits(), {name: id(t) for name, t in world.tensors().items()}
    assert [name for name in before if name.endswith("num_batches_tracked")]
    assert bool([name for name in before if name.endswith(".step")]) == bool(done)
    random = torch.get_rng_state()
    world.diagnose()
    assert world.bits() == before
    assert {name: id(t) for name, t in world.tensors().items()} == held  # the same tensors, where others refer to them
    assert torch.equal(torch.get_rng_state(), random)
    assert all(p.grad is None for group in world.training.groups for p in group.parameters())
    world.step(world.batch)
    moved = [name for name, bits in world.bits().items() if bits != before.get(name)]
    # Without latents that are finite no group moves, but the averages do.
    movers = {"critic", "generator", "generator_optimizer"} if spoil is spoil_nothing else {"critic"}
    assert {name.split(".")[0] for name in moved} >= movers


def test_the_replay_is_the_step(world: World) -> None:
    """With its dropout; otherwise what broke might not break again."""
    seen: list[Step] = []

    def noted(batch: Any) -> Step:
        seen.append(world.training.step(batch))
        return seen[-1]

    for _ in range(2):
        diagnose(world.training.groups, noted, world.batch, lambda: seed(0, 0))
    seen.append(world.step(world.batch))
    diagnose(world.training.groups, noted, world.batch, lambda: seed(0, 1))
    first, *same, other = ({k: v.item() for k, v in step.terms.items()} for step in seen[:3] + seen[3:])
    assert same == [first, first]
    assert other["ntp"] != first["ntp"]


def test_a_step_that_raises(world: World) -> None:
    world.step(world.batch)
    before, hooked = world.bits(), hooks(world)

    def fails(batch: Any) -> Step:
        world.training.step(batch)
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        diagnose(world.training.groups, fails, world.batch, lambda: seed(0, 0))
    assert world.bits() == before
    assert hooks(world) == hooked


def hooks(world: World) -> int:
    """How many there are anywhere, in the copies that `frozen` keeps too: these are copied with their hooks."""
    gc.collect()
    of_modules = [m._forward_hooks | m._forward_pre_hooks for m in gc.get_objects() if issubclass(type(m), nn.Module)]
    of_parameters = [p._post_accumulate_grad_hooks or {} for g in world.training.groups for p in g.parameters()]
    of_all = [every_module._global_forward_hooks, every_module._global_forward_pre_hooks]
    return sum(map(len, (*of_modules, *of_parameters, *of_all)))


def test_no_hook_is_left(world: World) -> None:
    before = hooks(world)
    during: list[int] = []

    def noted(batch: Any) -> Step:
        during.append(hooks(world))
        return world.training.step(batch)

    diagnose(world.training.groups, noted, world.batch, lambda: seed(0, 0))
    assert hooks(world) == before
    assert during[0] > before


# ------------------------------------------------------------------------------------------------ the batch, the words


@pytest.mark.parametrize("kind", ["batch", "encoded"])
def test_a_batch_comes_back(world: World, tmp_path: Path, kind: str) -> None:
    batch = getattr(world, kind)
    batch = replace(batch, f={"vjepa2.1-b": batch.f[TARGET].mT.contiguous().mT, "f.x": batch.f[TARGET].double()})
    batch.f["f.x"][0, 0, 0] = torch.nan
    path = save_batch(tmp_path, 1234, batch)
    assert path == tmp_path / "nonfinite" / "step-00001234.safetensors"
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    back = load_batch(path)
    assert type(back) is type(batch)
    for field in dataclasses.fields(batch):
        mine, theirs = getattr(batch, field.name), getattr(back, field.name)
        pairs = [(mine, theirs)] if isinstance(mine, Tensor) else [(mine[k], theirs[k]) for k in mine.keys() | theirs]
        for a, b in pairs:
            torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


def test_a_kept_batch_breaks_again(world: World, tmp_path: Path) -> None:
    world.batch.x[0, 0, 0, 0] = torch.nan
    assert world.diagnose(load_batch(save_batch(tmp_path, 3, world.batch))) == world.diagnose()


def test_files_that_hold_no_batch(world: World, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    save_safetensors(other, {"c": torch.zeros(1)}, {"format": "gear-1"})
    with pytest.raises(UnreadableFile, match="holds no batch: give one that a run left in its folder nonfinite/"):
        load_batch(other)
    with pytest.raises(UnreadableFile, match="There is no file"):
        load_batch(tmp_path / "none.safetensors")
    (tmp_path / "nonfinite").write_text("in the way")
    with pytest.raises(WriteError, match="could not be written"):
        save_batch(tmp_path, 1, world.batch)


SAVED = Path("runs/a/nonfinite/step-00001234.safetensors")
END = f"the batch is saved in {SAVED};"


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (
            Diagnosis(("align_soft", "grad_tokenizer"), None, None, "tokenizer.encoder.down.1", None),
            "align_soft is not finite from step 1234 on (nor is grad_tokenizer); the first module with a non-finite "
            f"output for finite inputs was tokenizer.encoder.down.1; {END} train with a lower optimizer.tokenizer_lr "
            "in another folder, or go on from an earlier checkpoint (keep_every keeps some).",
        ),
        (Diagnosis(("ntp",), None, None, "generator.output", None), "lower optimizer.generator_lr"),
        (Diagnosis(("ntp",), None, None, None, None), "the loss itself is not; .* lower optimizer.generator_lr"),
        (Diagnosis(("adversarial",), None, None, "critic.main.0", None), "lower optimizer.critic_lr"),
        (Diagnosis(("perceptual",), None, None, "Perceptual.a", None), "Perceptual.a; .* lower optimizer.tokenizer_lr"),
        (
            Diagnosis(("grad_critic",), None, None, None, "critic.main.0.weight"),
            "grad_critic is not finite .* every output was finite, and the first gradient that was not is "
            "critic.main.0.weight's; .* lower optimizer.critic_lr",
        ),
        (Diagnosis(("grad_critic",), None, None, None, None), "not the norm over all of them; .* optimizer.critic_lr"),
        (
            Diagnosis(("ntp", "a", "b", "c", "d"), "f.dinov2-b", None, None, "generator.norm.weight"),
            r"\(nor are a, b, c, and 1 more\); the batch itself holds NaN or infinity, in f.dinov2-b; .* mend or",
        ),
        (Diagnosis(("ntp",), None, "generator.norm.weight", "generator.norm", None), "weight generator.norm.weight it"),
        (Diagnosis((), None, None, None, None), "finite when it was repeated, .* go on from an earlier checkpoint"),
    ],
)
def test_the_sentence(found: Diagnosis, said: str) -> None:
    text = sentence(found, 1234, SAVED)
    assert text == said or re.search(said, text), text
    assert END in text
    assert text.endswith(".")
    assert "\n" not in text
