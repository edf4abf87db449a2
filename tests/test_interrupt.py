"""Interrupting the kernel while a cell awaits a training run, as a reader may."""

import os
import time

import pytest
from jupyter_client.manager import start_new_kernel

from cort33x_lib.files import PROJECT
from cort33x_lib.training.checkpoint import load_model, newest_checkpoint
from cort33x_lib.training.record import Run

PREPARE = """
import sys
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, "tests")
from test_training import CONFIG, RECIPE, Transformer, make_batches, make_run, train
from cort33x_lib.view.widgets import TrainingDashboard
run = make_run(Path({folder!r}))
recipe = replace(RECIPE, steps=10**6, save_every=10**6)
def steps():
    return train(Transformer(CONFIG), make_batches(), recipe, run)
dashboard = TrainingDashboard(steps, recipe.steps, 1.0, 5.0)
"""


def outputs(client, code, timeout=60):
    """Everything a cell prints; `client.execute_interactive` raises on a time-out."""
    heard = []
    client.execute_interactive(
        code,
        timeout=timeout,
        output_hook=lambda message: heard.append(message["content"]),
    )
    return "".join(c.get("text", "") + c.get("ename", "") for c in heard)


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
def test_an_interrupted_cell_ends_and_leaves_the_last_step(tmp_path):
    manager, client = start_new_kernel(cwd=PROJECT)
    try:
        assert outputs(client, PREPARE.format(folder=str(tmp_path))) == ""
        client.execute("print('ended', await dashboard.finished())")
        run = Run(tmp_path / "test-001")
        while not run.metrics():
            time.sleep(0.05)
        manager.interrupt_kernel()
        assert "stopped" in outputs(client, "print(dashboard.state)")
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    checkpoint = newest_checkpoint(run.checkpoints)
    assert checkpoint.step == run.metrics()[-1]["step"] >= 1
    load_model(checkpoint)
