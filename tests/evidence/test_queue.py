"""The queue on real runs of the smallest kind, with stand-ins for CIFAR-10 and the Inception network."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from gear import build, run
from gear.config import ConfigError, Frozen, Gear
from gear.evidence import queue, results
from gear.evidence.arms import ARMS, arms, configured, generated
from gear.evidence.claims import SIX
from gear.evidence.queue import Job, Queue, jobs
from gear.evidence.scales import CPU, GPU, SCALES, Scale
from gear.store.foreign import UnreadableFile
from gear.train import state
from gear.train.lock import locked

pytestmark = pytest.mark.usefixtures("stand_ins")
CHAIN = ("warmup-vq", "gear", "repa-on-gear")


@pytest.fixture(scope="module")
def worked(stand_ins: None, small_scale: Scale, tmp_path_factory: pytest.TempPathFactory) -> tuple[Queue, Path]:
    """A queue that has done `CHAIN`, and where its results are."""
    root = tmp_path_factory.mktemp("evidence")
    q = Queue(small_scale, root / "runs", root / "results", "cpu", Console(quiet=True))
    q.work(jobs(small_scale, CHAIN))
    return q, root / "results"


def test_every_arm_has_a_result_with_all_that_is_measured(worked: tuple[Queue, Path], small_scale: Scale):
    found = results.every(worked[1], small_scale)
    assert set(found) == {(name, 0) for name in CHAIN}
    warm, joint, fresh = (found[name, 0] for name in CHAIN)
    assert (warm.config["seed"], joint.config["seed"]) == (1000, 0)
    assert set(warm.measured) == {"reconstruction", "probe"}
    assert set(joint.measured) == {"reconstruction", "probe", "samples", "prediction"}
    assert set(fresh.measured) == {"probe", "samples", "prediction"}  # its tokenizer is the other's
    assert joint.measured["samples"].keys() >= {"gfid", "sfid", "kid", "precision", "recall"}
    assert joint.measured["samples"]["n"] == 16
    assert joint.measured["reconstruction"].keys() >= {"rfid", "psnr", "ssim", "l1", "lpips"}
    assert [point["step"] for point in joint.curve] == [2, 4]
    assert [line["step"] for line in joint.log] == [2, 4]
    assert (fresh.start, fresh.config["tokenizer"]["init"]) == ("gear", "gear-0")
    assert all(r.about["commit"] == r.about["measured"] for r in found.values())
    bits = joint.measured["prediction"]
    assert bits["rate"] == 64 * 4
    assert bits["bits"] == pytest.approx(64 * bits["ntp"] / np.log(2))


def test_an_arm_on_a_frozen_tokenizer_has_the_tokenizer_of_the_other(worked: tuple[Queue, Path]):
    q, _ = worked
    one, other = (run.load(q.out / f"{name}-0", "cpu").tokenizer.state_dict() for name in CHAIN[1:])
    assert all(torch.equal(t, other[name]) for name, t in one.items())


def test_what_is_done_is_not_done_again(
    worked: tuple[Queue, Path], small_scale: Scale, monkeypatch: pytest.MonkeyPatch
):
    q, into = worked
    before = {path: path.read_bytes() for path in into.rglob("*.json")}
    for name in ("train", "load"):
        monkeypatch.setattr(run, name, lambda *_, **__: pytest.fail("it was done"))
    q.work(jobs(small_scale, CHAIN))
    assert {path: path.read_bytes() for path in into.rglob("*.json")} == before


def test_broken_off_while_it_measured_it_does_not_train_again(
    worked: tuple[Queue, Path], small_scale: Scale, monkeypatch: pytest.MonkeyPatch
):
    q, into = worked
    path = results.place(into, small_scale, "repa-on-gear", 0)
    before = results.read(path)
    path.unlink()
    (q.out / "repa-on-gear-0" / "measured.json").write_text('{"protocol": "of another one", "measured": {}}')
    whole = queue.measure

    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(queue, "measure", stopped)
    with pytest.raises(KeyboardInterrupt):
        q.work(jobs(small_scale, CHAIN))
    assert not path.exists()
    monkeypatch.setattr(queue, "measure", whole)
    monkeypatch.setattr(q, "commit", "a later one")
    monkeypatch.setattr(run, "train", lambda *_, **__: pytest.fail("it was trained"))
    q.work(jobs(small_scale, CHAIN))
    after = results.read(path)
    assert (after.measured, after.curve, after.log) == (before.measured, before.curve, before.log)
    assert (after.about["commit"], after.about["measured"]) == (before.about["commit"], "a later one")


def test_broken_off_in_the_last_evaluation_it_is_made_again(worked: tuple[Queue, Path], small_scale: Scale):
    q, into = worked
    path, curve = results.place(into, small_scale, "gear", 0), q.out / "gear-0" / "evaluations.jsonl"
    before = results.read(path)
    path.unlink()
    curve.write_text(curve.read_text().splitlines()[0] + "\n")
    q.work(jobs(small_scale, CHAIN))
    assert [(p["step"], p["gfid"]) for p in results.read(path).curve] == [(p["step"], p["gfid"]) for p in before.curve]


def test_a_start_whose_run_is_gone_is_trained_again_and_that_is_said(
    worked: tuple[Queue, Path], small_scale: Scale, tmp_path: Path
):
    into = tmp_path / "results"
    shutil.copytree(worked[1], into, ignore=shutil.ignore_patterns("starts"))
    path = results.place(into, small_scale, "repa-on-gear", 0)
    before = results.read(path)
    path.unlink()
    said = Console(record=True, width=400)
    Queue(small_scale, tmp_path / "other", into, "cpu", said).work(jobs(small_scale, ("repa-on-gear",)))
    text = said.export_text()
    assert "gear-0 has a result, but neither a run nor a start" in text
    assert "warmup-vq-0 has a result, but neither a run nor a start" in text
    assert results.read(path).measured == before.measured  # as it is on the same kind of processor


def test_a_start_that_is_kept_needs_no_run(worked: tuple[Queue, Path], small_scale: Scale, tmp_path: Path):
    """It is whole but for what no arm begins with, and says nothing of the machine."""
    into = tmp_path / "results"
    shutil.copytree(worked[1], into)
    path = results.place(into, small_scale, "repa-on-gear", 0)
    before = results.read(path)
    path.unlink()
    Queue(small_scale, tmp_path / "other", into, "cpu", Console()).work(jobs(small_scale, ("repa-on-gear",)))
    assert sorted(p.name for p in (tmp_path / "other").glob("*/*") if p.suffix != ".queue") == ["repa-on-gear-0"]
    after = results.read(path)
    assert (after.measured, after.log, after.config) == (before.measured, before.log, before.config)
    kept = state.load(results.start(into, small_scale, "gear", 0))
    whole = state.load(worked[0].out / "gear-0", ("tokenizer_ema", "critic"))
    assert kept.config.tokenizer.init is None
    assert kept.tensors.keys() == whole.tensors.keys()
    assert all(torch.equal(t, whole.tensors[name]) for name, t in kept.tensors.items())


def test_another_tokenizer_is_not_begun_with(worked: tuple[Queue, Path], small_scale: Scale, tmp_path: Path):
    """As one is that was trained again on a machine that rounds otherwise; here the result tells of another."""
    into = tmp_path / "results"
    shutil.copytree(worked[1], into, ignore=shutil.ignore_patterns("starts"))
    results.place(into, small_scale, "repa-on-gear", 0).unlink()
    path = results.place(into, small_scale, "gear", 0)
    found = results.read(path)
    found.log[0]["reconstruction"] *= 1.001
    results.write(path, found)
    with pytest.raises(ConfigError, match=r"gear-0 was trained again, and is not the run that .*gear-0\.json tells of"):
        Queue(small_scale, tmp_path / "other", into, "cpu", Console()).work(jobs(small_scale, ("repa-on-gear",)))
    assert not results.start(into, small_scale, "gear", 0).exists()
    assert not results.place(into, small_scale, "repa-on-gear", 0).exists()


def test_what_a_gpu_cannot_make_again_is_asked_for_first(
    worked: tuple[Queue, Path], small_scale: Scale, tmp_path: Path
):
    into = tmp_path / "results"
    shutil.copytree(worked[1], into)
    results.place(into, small_scale, "repa-on-gear", 0).unlink()
    start = results.start(into, small_scale, "gear", 0)
    start.unlink()
    q = Queue(small_scale, tmp_path / "other", into, "cpu", Console())
    q.judge = replace(q.judge, on=torch.device("cuda"))
    with pytest.raises(
        ConfigError, match=r"repa-on-gear-0 begins with the tokenizer of gear-0, of which .*, but .* is"
    ):
        q.work(jobs(small_scale, ("repa-on-gear",)))
    results.place(into, small_scale, "gear", 0).unlink()  # which would be trained, on a tokenizer that is lost
    results.start(into, small_scale, "warmup-vq", 0).unlink()
    with pytest.raises(ConfigError, match="gear-0 begins with the tokenizer of warmup-vq-0, of which"):
        q.work(jobs(small_scale, ("repa-on-gear",)))
    assert not q.out.exists()


def test_what_is_measured_does_not_depend_on_who_trained(
    worked: tuple[Queue, Path], small_scale: Scale, monkeypatch: pytest.MonkeyPatch
):
    """On a GPU a run trains with TF32 unless it says otherwise."""
    q, into = worked
    results.place(into, small_scale, "gear", 0).unlink()
    (q.out / "gear-0" / "measured.json").unlink()
    allowed = []
    monkeypatch.setattr(build, "set_tf32", lambda tf32, on: allowed.append(tf32))
    q.work(jobs(small_scale, ("gear",)))
    assert allowed == [False]


def test_the_folder_of_another_configuration_is_refused(worked: tuple[Queue, Path], small_scale: Scale, tmp_path: Path):
    other = replace(small_scale, base=replace(small_scale.base, batch=3))
    with pytest.raises(ConfigError, match="already holds a run with another configuration"):
        Queue(other, worked[0].out.parent, tmp_path, "cpu", Console(quiet=True)).work(jobs(other, ("warmup-vq",)))


def test_the_protocol_is_all_that_decides(small_scale: Scale):
    def digest(scale: Scale, name: str = "gear", seed: int = 0) -> str:
        return results.protocol(scale, arms()[name], seed)

    base = small_scale.base
    others = [
        replace(small_scale, base=replace(base, steps=9)),  # of the warm-up that it begins with
        replace(small_scale, curve=1),
        replace(small_scale, counts=replace(small_scale.counts, generated=9)),
        replace(small_scale, base=replace(base, optimizer=replace(base.optimizer, critic_lr=1.0))),
    ]
    digests = [digest(scale) for scale in (small_scale, *others)] + [digest(small_scale, "gear-bfloat16")]
    assert len({*digests, digest(small_scale, "control")}) == len(digests) + 1
    assert digest(small_scale) == digest(replace(small_scale, seeds=(7,))) == digest(small_scale, seed=1)
    for_others = replace(small_scale, claims_of={1: (4,)})
    assert digest(for_others) == digest(small_scale) != digest(for_others, seed=1)
    assert digest(for_others, "gear-tap-1") == digest(for_others, "gear-tap-1", 1)


def test_the_same_seed_gives_the_same_result(worked: tuple[Queue, Path], small_scale: Scale, tmp_path: Path):
    again = Queue(small_scale, tmp_path / "runs", tmp_path / "results", "cpu", Console(quiet=True))
    again.work(jobs(small_scale, ("gear",)))  # and what it begins with, which is not measured
    assert [path.name for path in tmp_path.glob("results/*/*.json")] == ["gear-0.json"]
    one, other = (
        results.read(results.place(into, small_scale, "gear", 0)) for into in (worked[1], tmp_path / "results")
    )
    assert one.measured == other.measured
    assert one.curve[-1]["gfid"] == other.curve[-1]["gfid"]


def test_what_another_process_is_at_is_left_to_it(worked: tuple[Queue, Path], small_scale: Scale):
    q, _ = worked
    control = Job(arms()["control"], 0)
    with locked(q.out / "control-0.queue"):
        assert not q.take(control)
    with locked(q.out / "warmup-vq-1.queue"):  # which another one trains, and this one waits for
        assert not q.take(Job(control.arm, 1))
    assert not list(q.out.glob("control-*/log.jsonl"))


def test_an_arm_that_diverges_is_a_result_and_the_rest_goes_on(small_scale: Scale, tmp_path: Path, monkeypatch):
    wild = replace(small_scale.base.optimizer, generator_lr=1e30, tokenizer_lr=1e30)
    guards = replace(small_scale.base.guards, skip_limit=1)
    scale = replace(small_scale, base=replace(small_scale.base, optimizer=wild, guards=guards, log_every=1))
    whole = arms()["warmup-vq"]
    calm = replace(whole, make=lambda _: replace(small_scale.base, guards=guards))
    monkeypatch.setattr(queue, "arms", lambda: arms() | {"warmup-vq": calm})
    q = Queue(scale, tmp_path / "runs", tmp_path / "results", "cpu", Console(quiet=True))
    q.work([Job(arms()["gear"], 0), Job(arms()["repa-on-gear"], 0), Job(calm, 0)])
    found = results.every(tmp_path / "results", scale)
    assert found["gear", 0].measured == found["repa-on-gear", 0].measured == {"failed": "Diverged"}
    assert set(found["warmup-vq", 0].measured) == {"reconstruction", "probe"}


def test_results_of_another_protocol_are_refused(worked: tuple[Queue, Path], small_scale: Scale):
    q, into = worked
    longer = Queue(replace(small_scale, steps=5), q.out.parent, into, "cpu", Console(quiet=True))
    with pytest.raises(ConfigError, match=r"gear-0\.json was made by another protocol .*: move it away"):
        longer.work(jobs(longer.scale, CHAIN))


@pytest.mark.parametrize("text", ["", "[]", '{"format": "gear-evidence-1"}', '{"format": "other"}', "{" * 3000])
def test_a_file_that_is_no_result(tmp_path: Path, text: str):
    (tmp_path / "gear-0.json").write_text(text)
    with pytest.raises(UnreadableFile, match=r"gear-0\.json is no result of `gear evidence`"):
        results.read(tmp_path / "gear-0.json")


def test_a_result_comes_back_as_it_was(worked: tuple[Queue, Path], small_scale: Scale, tmp_path: Path):
    result = results.read(results.place(worked[1], small_scale, "gear", 0))
    results.write(tmp_path / "copy.json", result)
    assert results.read(tmp_path / "copy.json") == result
    assert str(tmp_path.parent) not in json.dumps(result.config)  # no folder of this machine, but for the data


def test_an_arm_that_there_is_not():
    with pytest.raises(ValueError, match="there is no arm nobody; there are warmup-vq"):
        jobs(CPU, ("nobody",))


def test_names_are_unique_and_starts_come_before():
    names = [arm.name for arm in ARMS]
    assert len(set(names)) == len(names)
    for i, arm in enumerate(ARMS):
        assert arm.start is None or arm.start in names[:i]


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES.keys())
def test_every_arm_is_a_possible_run_and_every_claim_has_arms(scale: Scale):
    from gear.config_check import check

    for arm in ARMS:
        config = replace(arm.make(scale), device="cpu")
        check(replace(config, tokenizer=replace(config.tokenizer, init=arm.start)))
    assert {claim for arm in ARMS for claim in arm.claims} == set(range(11))


@pytest.mark.parametrize("scale", [CPU, GPU], ids=("cpu", "gpu"))
def test_arms_that_are_compared_differ_in_what_they_are_named_for(scale: Scale):
    made = {name: arm.make(scale) for name, arm in arms().items()}
    assert replace(made["control"], stage=Gear()) == made["gear"]
    assert made["control"].stage == Gear(lam_soft=0.0)
    assert replace(made["repa"], stage=Gear()) == made["gear"]
    assert made["repa"] == made["repa-on-gear"] == made["repa-on-control"]
    assert replace(made["llamagen"], stage=Frozen()) == made["repa"]
    assert made["gear-bfloat16"] == made["gear"] == made["gear-scratch"]
    assert made["text-on-gear"] == made["text-on-warmup"] == made["text-on-control"]
    assert {name for name, c in made.items() if c.optimizer != scale.base.optimizer} == set()
    same = {"gear-bfloat16", "gear-scratch"}  # in how it is trained, and in what it begins with
    varied = {name: config for name, config in made.items() if name.startswith("gear-") and name not in same}
    assert [name for name, config in varied.items() if config == made["gear"]] == []


def test_claims_are_finished_one_after_the_other_and_the_first_two_together():
    order = [(max(2, min(job.arm.claims)), job.seed) for job in jobs(GPU, seeds=(7, 8))]
    assert order == sorted(order)
    assert len(order) == len(ARMS) * 2


def test_seeds_are_for_their_claims_and_for_what_these_begin_with():
    at = {seed: {job.arm.name for job in jobs(CPU) if job.seed == seed} for seed in CPU.seeds}
    assert at[0] == at[1] == at[2] == {name for name, arm in arms().items() if {0, 1, 2, 3, 5, 6} & {*arm.claims}}
    others = {name for name, arm in arms().items() if {4, 7, 8, 9} & {*arm.claims}}
    assert at[3] == at[4] == at[5] == others | {"warmup-vq", "control"}
    assert len(jobs(CPU)) == 3 * (17 + 27)
    assert [(job.arm.name, job.seed) for job in jobs(CPU, ("ste",), (4, 7))] == [
        ("ste", 4),
        ("ste", 7),
    ]  # if both are named
    assert {job.arm.name for job in jobs(CPU, seeds=(4,))} == at[4]
    assert len(jobs(CPU, seeds=(7,))) == len(ARMS)
    assert [job.seed for job in jobs(GPU)] == [0] * 9 + [1] * 9 + [2] * 9
    assert {job.arm.name for job in jobs(GPU)} == {"warmup-vq", *SIX, "ste", "naive"}


def test_a_seed_of_other_claims_asks_for_what_is_theirs():
    gear = arms()["gear"]
    for seed, inception, curve in ((0, 2500, 100), (3, 0, 600), (7, 2500, 100)):
        assert generated(CPU, gear, seed) == inception
        assert configured(CPU, gear, seed).watch.evaluate_every == curve
    assert [configured(GPU, arms()[name], 0).watch.evaluate_every for name in ("gear", "ste")] == [200, 1000]
    assert [CPU.seeds_of(claim) for claim in (1, 4, 9, 10)] == [(0, 1, 2), (3, 4, 5), (3, 4, 5), (0, 1, 2)]
