"""The launch files that people copy: their options exist, and a signal reaches the processes that train."""

import importlib
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from gear import cli
from gear.choosing import beginning, fields
from gear.config import Config

yaml: Any = pytest.importorskip("yaml")  # comes with several of our packages

ROOT = Path(__file__).parent.parent
SBATCH, SKYPILOT = ROOT / "launch/slurm.sbatch", ROOT / "launch/skypilot.yaml"
SCRIPTS = {"slurm": SBATCH.read_text(), "skypilot": yaml.safe_load(SKYPILOT.read_text())["run"]}
OPTIONS = {  # of sbatch that a launch file may have, with what their values look like (sbatch --help)
    "account": r"\S+", "cpus-per-task": r"\d+", "gpus-per-node": r"(\w+:)?\d+", "gres": r"\S+", "job-name": r"\S+",
    "mem": r"\d+[KMGT]?", "nodes": r"\d+(-\d+)?", "ntasks-per-node": r"\d+", "open-mode": r"append|truncate",
    "output": r"\S+", "partition": r"\S+", "requeue": None, "signal": r"([BR]{1,2}:)?(USR1|TERM|10|15)(@\d+)?",
    "time": r"(\d+-)?\d+(:\d\d){0,2}",
}  # fmt: skip


def words(script: str) -> list[str]:
    """Of the command that starts torchrun; what the shell puts in place of a variable is written 1 here."""
    text = re.sub(r"\$\(\([^)]*\)\)|\$\w+", "1", script.replace("\\\n", " "))
    (command,) = [line for line in text.splitlines() if "torchrun" in line and not line.lstrip().startswith("#")]
    return shlex.split(command.rstrip(" &"))


def torchrun(script: str) -> list[str]:
    """Its options, without the program and what that is given."""
    all_words = words(script)
    (start,) = [i for i, word in enumerate(all_words) if word.endswith("torchrun")]
    return all_words[start + 1 : all_words.index("-m")]


def trained(script: str) -> cli.Train:
    """What `gear train` makes of the command, by the project's own parsing."""
    module, command, *args = words(script)[words(script).index("-m") + 1 :]
    assert (module, command) == ("gear", "train")
    start = beginning("train", args, "")
    assert start is not None
    return fields("train", start, args, cli.Train(start.config, start.out))


def sbatch_options(script: str) -> dict[str, str | None]:
    """Those in its head; sbatch reads no further than the first command."""
    head = script[: re.search(r"^[^#\n]", script, re.M).start()]  # type: ignore[union-attr]
    given = re.findall(r"^#SBATCH --([\w-]+)(?:=(.*))?$", head, re.M)
    assert len(given) == script.count("#SBATCH")
    return {name: value or None for name, value in given}


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_gear_command_is_one(name: str) -> None:
    command = trained(SCRIPTS[name])
    assert isinstance(command.config, Config)
    assert command.config.data.path == "imagenet/train"
    assert command.out.name == "gear-l"


@pytest.mark.parametrize("wrong", ["--data.pathh x", "--stepz 3", "surplus"])
def test_an_option_that_gear_does_not_have_is_seen(wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        trained(SCRIPTS["slurm"].replace("--data.path imagenet/train", wrong))
    assert capsys.readouterr().err


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_options_of_torchrun_exist(name: str) -> None:
    parser = importlib.import_module("torch.distributed.run").get_args_parser()
    options = parser.parse_args([*torchrun(SCRIPTS[name]), "-m", "gear"])
    assert (options.module, options.training_script) == (True, "gear")
    assert options.shutdown_timeout > 60  # a checkpoint of GEAR-L is 7 GB
    assert options.max_restarts == 0


@pytest.mark.parametrize("script", [SBATCH.read_text(), SCRIPTS["skypilot"]])
def test_bash_can_read_it(script: str) -> None:
    done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_options_of_sbatch() -> None:
    found = sbatch_options(SCRIPTS["slurm"])
    for name, value in found.items():
        assert name in OPTIONS
        expected = OPTIONS[name]
        assert value is None if expected is None else re.fullmatch(expected, value or ""), name
    assert {"requeue", "signal", "nodes", "time"} <= found.keys()
    assert found["ntasks-per-node"] == "1"
    seconds = int(str(found["signal"]).partition("@")[2])
    (shutdown,) = [int(o.partition("=")[2]) for o in torchrun(SCRIPTS["slurm"]) if o.startswith("--shutdown-timeout=")]
    assert shutdown + 15 <= seconds


# ------------------------------------------------------------------------------------------- signals, for real

RANK = """
import os, pathlib, signal, sys, time
def stop(number, frame):
    pathlib.Path(sys.argv[1], "got-" + os.environ["RANK"]).write_text(signal.Signals(number).name)
    sys.exit(130)
signal.signal(signal.SIGUSR1, stop)
pathlib.Path(sys.argv[1], "up-" + os.environ["RANK"]).touch()
time.sleep(120)
"""
JOB = os.getpid() % 12_000  # the script's port is 20,000 more, and the kernel gives those from 32,768 on to anybody
STUBS = {  # in the place of Slurm's programs, which need a cluster
    "srun": 'while [ "${1#--}" != "$1" ]; do shift; done\nexec "$@"',
    "scontrol": 'echo "$@" >> scontrol.log\n'
    'case "$2" in hostnames) echo localhost;; job) echo "PreemptTime=$PREEMPT";; esac',
}


@contextmanager
def submitted(folder: Path, program: str, preempted: str = "None") -> Iterator[subprocess.Popen[str]]:
    """slurm.sbatch in `folder`, as Slurm would start it on one node without GPUs, training by `program`."""
    (folder / "bin").mkdir()
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / "torchrun").write_text(
        f'#!/bin/bash\nset -- "${{@/--nproc-per-node=gpu/--nproc-per-node=2}}"\nwhile [ "$1" != -m ]; do o+=("$1")'
        f"; shift; done\nexec {shlex.quote(sys.executable)} {program}\n"
    )
    for name, text in STUBS.items():
        (folder / "bin" / name).write_text(f"#!/bin/bash\n{text}\n")
    for file in (*(folder / "bin").iterdir(), *(folder / ".venv" / "bin").iterdir()):
        file.chmod(0o755)
    job = {"SUBMIT_DIR": folder, "JOB_NODELIST": "localhost", "CPUS_PER_TASK": 1, "NNODES": 1, "JOB_ID": JOB}
    environment = os.environ | {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "PREEMPT": preempted}
    environment |= {f"SLURM_{name}": str(value) for name, value in job.items()}
    process = subprocess.Popen(
        ["bash", str(SBATCH)], env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)  # torchrun, if it is still there, ends its own
        process.communicate(timeout=60)


def test_sigusr1_reaches_the_ranks_and_the_job_is_queued_again(tmp_path: Path) -> None:
    """Through the script and the real torchrun with the options of the script."""
    (tmp_path / "rank.py").write_text(RANK)
    script = (
        f'-m torch.distributed.run "${{o[@]}}" {shlex.quote(str(tmp_path / "rank.py"))} {shlex.quote(str(tmp_path))}'
    )
    with submitted(tmp_path, script) as process:
        until = time.monotonic() + 120
        while not all((tmp_path / f"up-{rank}").exists() for rank in (0, 1)):
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)  # is left to Slurm
        time.sleep(0.5)
        process.send_signal(signal.SIGUSR1)
        said = process.communicate(timeout=120)[1]
    assert [(tmp_path / f"got-{rank}").read_text() for rank in (0, 1)] == ["SIGUSR1", "SIGUSR1"], said
    assert process.returncode not in (0, -signal.SIGTERM, -signal.SIGUSR1)
    assert f"requeue {JOB}\n" in (tmp_path / "scontrol.log").read_text()


@pytest.mark.parametrize(("code", "preempted", "again"), [(0, False, 0), (3, False, 0), (0, True, 0), (1, True, 1)])
def test_a_job_that_ends_by_itself_is_queued_again_if_it_was_preempted(
    tmp_path: Path, code: int, preempted: bool, again: int
) -> None:
    """As Slurm itself does it only with a job that it has to kill."""
    when = "2026-11-25T23:14:35" if preempted else "None"
    with submitted(tmp_path, f"-c 'raise SystemExit({code})'", when) as process:
        process.communicate(timeout=60)
    assert process.returncode == code
    assert (tmp_path / "scontrol.log").read_text().count("requeue") == again


# ------------------------------------------------------------------------------------------- SkyPilot


def test_the_keys_of_the_skypilot_file() -> None:
    task = yaml.safe_load(SKYPILOT.read_text())
    assert task.keys() <= {"name", "resources", "num_nodes", "workdir", "envs", "file_mounts", "setup", "run"}
    assert task["resources"].keys() <= {"accelerators", "use_spot", "disk_size", "job_recovery", "infra"}
    assert task["resources"]["use_spot"] is True
    (mount,) = task["file_mounts"]
    assert str(trained(task["run"]).out.parent) == mount
    assert task["file_mounts"][mount]["mode"] == "MOUNT_CACHED"
    assert set(re.findall(r"\$\{(\w+)\}", str(task["file_mounts"]))) == set(task["envs"])
    known = {"SKYPILOT_NODE_IPS", "SKYPILOT_NUM_NODES", "SKYPILOT_NUM_GPUS_PER_NODE", "SKYPILOT_NODE_RANK"}
    assert set(re.findall(r"SKYPILOT_\w+", task["run"])) == known


def test_skypilot_itself_can_read_it(monkeypatch: pytest.MonkeyPatch) -> None:
    sky: Any = pytest.importorskip("sky")
    monkeypatch.chdir(ROOT)
    task = sky.Task.from_yaml(str(SKYPILOT))
    (resources,) = task.resources
    assert (resources.use_spot, resources.accelerators) == (True, {"H100": 8})
    assert list(task.storage_mounts) == ["/runs"]
