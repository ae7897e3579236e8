"""Sweeps on a cluster: Ray loses a node in the middle, and Slurm's example starts Ray. Real nodes,
real launchers."""
import os
import subprocess
import sys

from sweeps import BIN, HANGS, alive, attempts, command, four_records, wait

from sagelib.bench.paths import PLANS, TOP

CLUSTER = """
import contextlib, sys, threading, time
from pathlib import Path

import psutil
from ray.cluster_utils import Cluster
from sagelib.bench import sweep

plan, results, out = sys.argv[1], sys.argv[2], Path(sys.argv[3]).resolve()
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
import ray
ray.init(address=cluster.address, log_to_driver=False, configure_logging=False)


def node_in_the_middle():
    # the one above an attempt whose run has a checkpoint, however fast nodes start and runs end
    for process in psutil.process_iter(["cmdline"]):
        folder = Path((process.info["cmdline"] or [""])[-1])  # OUT/attempts/RUN-DIGITS/01-DIGITS
        run = folder.parent.name.rsplit("-", 1)[0]
        if out / "attempts" in folder.parents and list(out.glob(f"checkpoints/{run}-*.pt")):
            above = {parent.pid for parent in process.parents()}
            return next((node for node in nodes
                         if node.all_processes["raylet"][0].process.pid in above), None)


def kill_one_in_the_middle():
    node = None
    while node is None:
        time.sleep(0.05)
        with contextlib.suppress(psutil.NoSuchProcess):
            node = node_in_the_middle()
    cluster.remove_node(node, allow_graceful=False)  # SIGKILL of the node's processes
    print("a node was killed", flush=True)
    time.sleep(2)
    for _ in range(10):  # on a busy machine a new node may miss Ray's own deadline
        with contextlib.suppress(Exception):
            cluster.add_node(num_cpus=1)
            return


threading.Thread(target=kill_one_in_the_middle, daemon=True).start()
failed = sweep.run(plan, "small", results=results, out=out, backend="ray")
cluster.shutdown()
sys.exit(1 if failed else 0)
"""


def test_a_cluster_of_two_nodes_loses_one_in_the_middle_and_no_run(plan, tmp_path):
    file = plan(epochs=12)
    (tmp_path / "drive.py").write_text(CLUSTER)
    quiet = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0",
             "HOME": str(tmp_path)}
    words = [tmp_path / "drive.py", file, tmp_path / "results", tmp_path / "out"]
    driver = subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=TOP,
                            env=quiet, timeout=HANGS)
    assert driver.returncode == 0, driver.stdout + driver.stderr
    assert "a node was killed" in driver.stdout
    assert "[4/4 done, 0 running, 0 failed" in driver.stdout
    assert all(len(r["curve"]) == 12 for r in four_records(tmp_path))
    assert len(attempts(tmp_path)) == 5  # the one that was killed, once more
    wait(lambda: not alive(tmp_path))


SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
exec "$@"
"""


def test_the_slurm_example_runs_where_slurms_commands_answer(plan, tmp_path):
    """The script itself, on one node; srun and scontrol are stand-ins, Ray's launcher is real."""
    file, bin_ = plan(), tmp_path / "bin"
    bin_.mkdir()
    for name, text in (("srun", SRUN), ("scontrol", "#!/bin/sh\nhostname\n")):
        (bin_ / name).write_text(text)
        (bin_ / name).chmod(0o755)
    path = os.pathsep.join([str(bin_), str(BIN), os.environ["PATH"]])
    slurm = dict(SLURM_JOB_NODELIST="here", SLURM_JOB_ID=str(os.getpid()), SLURM_JOB_NUM_NODES="1",
                 SLURM_CPUS_PER_TASK="2", HOME=str(tmp_path))
    asked = [*command(file, tmp_path, "--threads", "1", "--gpus", "0")[3:]]
    ended = subprocess.run(["bash", PLANS / "sweep.sbatch", *asked],
                           env={**os.environ, **slurm, "PATH": path}, cwd=TOP, capture_output=True,
                           text=True, timeout=HANGS)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "[4/4 done, 0 running, 0 failed" in ended.stdout, ended.stdout + ended.stderr
    four_records(tmp_path)
    # nobody else may reach the cluster
    assert (tmp_path / ".ray/auth_token").stat().st_mode & 0o077 == 0
    wait(lambda: not alive(tmp_path))


def test_shell_scripts_are_clean():
    scripts = [TOP / "ci/book", TOP / "ci/test", TOP / "ci/gpu", TOP / "ci/environment.sh",
               PLANS / "sweep.sbatch", TOP / ".ci/run"]
    ended = subprocess.run([BIN / "shellcheck", *scripts], capture_output=True, text=True, cwd=TOP)
    assert ended.returncode == 0, ended.stdout
