"""Faults in earnest: at each call of a save, real kills, two processes at once.

`make faults` runs as many as the book promises; the suite runs a sample.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_checkpoint import bound

ROOT = Path(__file__).parents[1]
LONG = "FAULTS_LONG" in os.environ
pytestmark = pytest.mark.skipif(
    not hasattr(os, "fork"), reason="needs fork and SIGKILL"
)


def run_faults(kind, trials):
    command = [sys.executable, str(ROOT / "tests" / "faults.py"), kind, str(trials)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("kind", "trials", "sample", "what"),
    [
        ("each_call", 1000, 10, "faults at the calls of a save lost something"),
        ("kills", 250, 12, "real kills lost more than an interval, or a bit"),
        ("races", 100, 12, "pairs had two winners, or none"),
    ],
)
def test_faults_are_survived(kind, trials, sample, what, capsys):
    found = run_faults(kind, trials if LONG else sample)
    assert found["failures"] == []
    with capsys.disabled():
        bound(len(found.pop("failures")), found.pop("trials"), what)
        print(f" {found or ''}", end="")


SAVE = """
import sys
from pathlib import Path
sys.path[:0] = [{tests!r}, {root!r}]
from test_training import *
model = Transformer(CONFIG)
optimizer = make_optimizer(model, RECIPE)
take_step(model, optimizer, [make_batches()[0]], 1e-3, 1.0)
folder = Path(sys.argv[1])
for step in (1, 2):
    save_checkpoint(folder, Progress(step), model, optimizer, {{}})
print("SAVE", file=sys.stderr, flush=True)
save_checkpoint(folder, Progress(3), model, optimizer, {{}})
"""


@pytest.fixture
def traced(tmp_path):
    """The system calls of a save, as strace sees them: their names and the path."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    script = SAVE.format(tests=str(ROOT / "tests"), root=str(ROOT))
    trace, folder = tmp_path / "trace", tmp_path / "saved"
    command = ["strace", "-y", "-o", str(trace), "--seccomp-bpf", "-f", "-e"]
    command += ["trace=fsync,rename,renameat,renameat2,unlink,unlinkat,rmdir,write"]
    command += [sys.executable, "-c", script, str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True)
    if done.returncode:
        pytest.skip(f"strace may not trace here: {done.stderr[-200:]!r}")
    lines = trace.read_text(errors="replace").splitlines()
    (start,) = (n for n, line in enumerate(lines) if '"SAVE' in line)
    return [line for line in lines[start + 1 :] if str(folder) in line], folder


def test_bytes_reach_the_disk_before_names_and_old_ones_go_last(traced):
    lines, folder = traced

    def place(pattern):
        (found, *more) = [n for n, line in enumerate(lines) if re.search(pattern, line)]
        return found

    part, final = f"{folder}/part-00000003", f"{folder}/step-00000003"
    renamed = place(rf'rename.*"{part}",.*"{final}"|rename.*{part}.*{final}')
    for name in ("model", "optimizer", "random"):
        file = rf"{part}/{name}.safetensors"
        written = [n for n, x in enumerate(lines) if "write(" in x and file in x]
        assert max(written) < place(rf"fsync\(\d+<{file}") < renamed
    sealed = place(r"rename.*\.write-\w+\.tmp.*checkpoint\.json")
    tensors = [place(rf"fsync\(\d+<{part}/{n}") for n in ("model", "optim", "random")]
    assert max(tensors) < sealed < place(rf"fsync\(\d+<{part}>") < renamed
    folder_synced = place(rf"fsync\(\d+<{folder}>")
    deleted = place(r'rename.*"[^"]*step-00000001"')
    assert renamed < folder_synced < deleted
