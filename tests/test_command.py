"""The command line, from outside: real commands in processes of their own."""

import asyncio
import csv
import json
import os
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib import import_module

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cort33x_lib.command.console import columns, sparkline, visible
from cort33x_lib.command.parser import main
from cort33x_lib.files import PROJECT, sha256_of
from cort33x_lib.lab.folder import save_folder
from cort33x_lib.lab.launch import launch
from cort33x_lib.lab.plan import PLANS
from cort33x_lib.model.config import CONFIGS
from cort33x_lib.model.transformer import Transformer
from cort33x_lib.text.corpus import load_corpus, manifest
from cort33x_lib.text.duplicates import exact_duplicates
from cort33x_lib.text.story_world import World
from cort33x_lib.text.token_files import Tokens
from cort33x_lib.text.tokenizer import Tokenizer, train_tokenizer
from cort33x_lib.training.checkpoint import newest_checkpoint
from cort33x_lib.training.record import OF_THE_MACHINE, Run
from cort33x_lib.view.widgets import TrainingDashboard

PROGRAM = [sys.executable, "-m", "cort33x_lib"]
COMMANDS = [
    "train", "resume", "fit", "generate", "evaluate", "runs", "runs list", "runs show",
    "runs diff", "runs bisect", "corpus", "corpus build", "tokenizer",
    "tokenizer train", "tokenizer encode",
]  # fmt: skip


def environment():
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUTF8": "1"}


def call(*words, code=0, timeout=120, **options):
    """What a command prints, and what it complains, once it ended with `code`."""
    done = subprocess.run(
        [*PROGRAM, *map(str, words)],
        capture_output=True,
        encoding="utf-8",
        cwd=PROJECT,
        env=environment(),
        timeout=timeout,
        **options,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout, done.stderr


def said(capsys, *words):
    """The same in this process, where PyTorch is loaded already: code and both."""
    try:
        code = main([str(word) for word in words])
    except SystemExit as end:
        code = end.code
    return code, *capsys.readouterr()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with two short runs of one name, the second from a file and a change."""
    folder = tmp_path_factory.mktemp("runs")
    call("train", "tiny", "--runs", folder)
    file = folder / "mine.toml"
    file.write_text('plan = "tiny"\n[recipe]\nsteps = 30\n')
    words = ["--config", file, "--set", "recipe.seed=3", "--name", "tiny"]
    call("train", *words, "--runs", folder)
    return folder


def left_by(run):
    """The bits that a run left: the hash of its weights, and its log without times."""
    newest = newest_checkpoint(run.checkpoints)
    log = [
        {k: v for k, v in m.items() if k not in OF_THE_MACHINE} for m in run.metrics()
    ]
    return newest.step, sha256_of(newest.folder / "model.safetensors"), log


def test_cell_button_and_command_give_the_same_bits(runs, tmp_path):
    cell = launch(PLANS["tiny"], "cell", tmp_path)
    list(cell.steps())
    button = launch(PLANS["tiny"], "button", tmp_path)

    async def pressed():
        steps = button.plan.recipe.steps
        dashboard = TrainingDashboard(button.steps, steps, 1.0, 6.0)
        dashboard._obey(dashboard, {"order": "run"}, [])
        return await dashboard.finished()

    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(asyncio.run, pressed()).result() == "finished"
    expected = left_by(Run(runs / "tiny-001"))
    assert expected[0] == len(expected[2]) == PLANS["tiny"].recipe.steps
    assert left_by(cell.run) == expected == left_by(button.run)


def test_file_and_change_reach_the_run(runs):
    recipe = Run(runs / "tiny-002").manifest["recipe"]
    assert (recipe["steps"], recipe["seed"]) == (30, 3)
    assert left_by(Run(runs / "tiny-002"))[0] == 30


def test_every_command_has_help(capsys):
    for words in ["", *COMMANDS]:
        code, printed, _ = said(capsys, *words.split(), "--help")
        assert code == 0 and "usage: python -m cort33x_lib" in printed
        assert max(map(len, printed.splitlines())) <= 100


@pytest.mark.parametrize(
    "words", ["", "trian", "train tiny --steps 3", "runs", "evaluate x --stories many"]
)
def test_wrong_usage_ends_with_two(capsys, words):
    code, printed, complaint = said(capsys, *words.split())
    assert (code, printed) == (2, "") and "usage:" in complaint


def test_the_process_ends_with_the_code(tmp_path):
    call("trian", code=2)
    call("runs", "list", "--runs", tmp_path, code=1)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("train tinny", "no plan 'tinny', expected one of tiny"),
        ("train tiny --set recipe.stepz=3", "no key 'recipe.stepz', expected one of"),
        ("train tiny --set recipe.steps=0", "steps is 0, expected a whole number"),
        ("train tiny --set recipe.steps=many", "'many', expected a whole number like"),
        ("train tiny --set recipe.clip=-1", "clip is -1.0, expected above 0"),
        ("train tiny --set recipe.betas=[0.9]", "expected two numbers from 0 to"),
        (
            "train tiny --set corpus.held_out=0",
            "corpus.held_out is 0, expected a",
        ),
        (
            "train tiny --set corpus.source=nowhere",
            "manifest.json cannot be read",
        ),
        ("train tiny --config nowhere.toml", "nowhere.toml: No such file"),
        ("train --config pyproject.toml", "no key 'build-system', expected one of"),
        ("train tiny --name ../up", "name '../up': expected letters"),
        ("resume tint", "no run 'tint' in"),
        ("resume tint", "near it: tiny"),
        ("runs show tiny-009", "near it: tiny-00"),
        ("runs show tiny --csv nowhere/x.csv", "nowhere/x.csv: No such file"),
        ("runs show tiny --tensorboard README.md", "README.md is a file, expected a"),
        ("runs diff tiny-001 tint", "no run 'tint' in"),
        ("runs bisect tiny-001 tiny-001", "differ in nothing but the seed"),
        ("runs bisect tiny-001 tiny --seeds 1", "seeds is 1, expected 2 or more"),
        ("runs bisect tiny data/runs/tour-seed-0", "was not started from a plan"),
        ("runs bisect tiny-001 tiny --code data data", "data holds no cort33x_lib"),
        ("generate data/runs/tour-seed-0", "no intact checkpoint in"),
        ("generate tiny --temperature -1", "temperature is -1.0, expected 0 or more"),
        ("generate tiny --tokens 0", "tokens is 0, expected 1 or more"),
        ("evaluate tiny --stories 0", "stories is 0, expected 1 or more"),
        ("evaluate tiny --corpus nowhere", "cannot be read"),
        ("evaluate data/runs/tour-model", "say --corpus or --stories"),
    ],
)
def test_trouble_is_one_line_and_ends_with_one(capsys, runs, words, told):
    code, printed, complaint = said(capsys, *words.split(), "--runs", runs)
    last = complaint.splitlines()[-1]
    assert code == 1 and last.startswith("cort33x: ") and told in last


def test_no_room_on_the_disk_is_said(small_disk):
    (small_disk / "ballast").write_bytes(b"0" * (2**20 - 4096 * 30))
    _, complaint = call("train", "tiny", "--runs", small_disk, code=1)
    assert "No space left" in complaint.splitlines()[-1]


def test_a_folder_that_cannot_be_written_is_told_before_the_work(capsys, small_disk):
    runs = small_disk / "runs"
    runs.touch()
    code, printed, complaint = said(capsys, "train", "tiny", "--runs", runs)
    assert (code, printed) == (1, "")
    assert complaint == f"cort33x: {runs} is a file, expected a folder\n"
    remount = ["mount", "-o", "remount,ro", "tmpfs", str(small_disk)]
    subprocess.run(remount, check=True)
    code, printed, complaint = said(capsys, "train", "tiny", "--runs", small_disk)
    told = f"cort33x: {small_disk} may not be written to: give another --runs\n"
    assert (code, printed, complaint) == (1, "", told)


def test_what_is_no_run_is_not_taken_for_one(capsys, runs, tmp_path):
    shutil.copytree(runs / "tiny-001", tmp_path / "tiny-001")
    call("corpus", "build", tmp_path / "tales", "stories:3")
    lines = said(capsys, "runs", "list", "--runs", tmp_path)[1].splitlines()
    assert [line.split()[0] for line in lines] == ["run", "tiny-001"]
    code, _, complaint = said(capsys, "runs", "show", "tales", "--runs", tmp_path)
    assert code == 1 and "no run 'tales' in" in complaint
    broken = tmp_path / "tiny-001" / "manifest.json"
    broken.write_text("{")
    code, _, complaint = said(capsys, "runs", "show", "tiny-001", "--runs", tmp_path)
    assert code == 1 and f"{broken} is damaged: Expecting property" in complaint


def test_help_names_every_plan_and_every_default(capsys):
    _, printed, _ = said(capsys, "train", "--help")
    assert all(plan in printed for plan in PLANS) and "tour (default)" in printed
    _, printed, _ = said(capsys, "generate", "--help")
    for default in ("(400)", "(0.8)", "(1)", "(0)"):
        assert default in printed


def test_a_run_is_chosen_by_name(capsys, runs):
    assert "tiny-002" in said(capsys, "runs", "show", "tiny", "--runs", runs)[1]
    _, shown, _ = said(capsys, "runs", "show", "tiny-001", "--runs", runs)
    assert "tiny-001" in shown and "█" in shown
    last = Run(runs / "tiny-001").metrics()[-1]
    assert f"{last['loss']:.3f}" in shown.splitlines()[-1]
    _, recorded, _ = said(
        capsys, "runs", "show", PROJECT / "data" / "runs" / "tour-seed-0"
    )
    assert "WFWF" in recorded


def test_schedule_and_precision_reach_the_run(capsys, runs, tmp_path):
    _, plain, _ = left_by(Run(runs / "tiny-001"))
    for number, change in enumerate(["schedule=wsd", "precision=bfloat16"], 1):
        words = ["train", "tiny", "--set", f"recipe.{change}", "--runs", tmp_path]
        code, printed, _ = said(capsys, *words)
        assert code == 0 and printed.startswith(f"tiny-00{number}: 20 steps in ")
        run, (key, value) = Run(tmp_path / f"tiny-00{number}"), change.split("=")
        assert run.manifest["recipe"][key] == value
        step, weights, log = left_by(run)
        assert step == len(log) == 20 and weights != plain
        assert log[-1]["held_out"] < log[9]["held_out"] < log[0]["loss"]
    rates = [m["learning_rate"] for m in Run(tmp_path / "tiny-001").metrics()]
    assert len({*rates[2:15]}) == 1 and rates[-1] < rates[14] == max(rates)


@pytest.mark.skipif(
    not shutil.which(os.environ.get("CXX", "g++")), reason="no C++ compiler is here"
)
def test_a_compiled_run_learns_what_a_plain_one_does(tmp_path):
    words = ["--set", "recipe.steps=3", "--set", "model.pattern=F", "--runs", tmp_path]
    call("train", "tiny", *words)
    words += ["--set", "recipe.compiled=true"]
    printed, _ = call("train", "tiny", *words, timeout=600)
    assert printed.startswith("tiny-002: 3 steps in ")
    plain, compiled = (Run(tmp_path / f"tiny-00{number}") for number in (1, 2))
    assert compiled.manifest["recipe"]["compiled"] is True
    told, _ = call("runs", "diff", "tiny-001", "tiny-002", "--runs", tmp_path)
    assert told.startswith("recipe.compiled was False and is True.\n")
    losses = [[m["loss"] for m in run.metrics()] for run in (plain, compiled)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


def test_fit_says_the_words_for_the_fastest_micro_batch():
    words = ["--set", "recipe.rows=1", "--set", "recipe.accumulation=2"]
    printed, _ = call("fit", "tiny", *words)
    *_, one, two, advice = printed.splitlines()
    speeds = {}
    for rows, line in ((1, one), (2, two)):
        said_rows, peak, speed = (int(part.replace(",", "")) for part in line.split())
        assert said_rows == rows and peak > 50
        speeds[rows] = speed
    best = max(speeds, key=speeds.get)
    assert advice == f"--set recipe.rows={best} --set recipe.accumulation={2 // best}"


def test_two_runs_are_compared(capsys, runs, tmp_path):
    both = ["tiny-001", "tiny-002", "--runs", runs]
    _, told, _ = said(capsys, "runs", "diff", *both)
    assert "seed" in told and "20" in told and "30" in told
    words = ["--steps", 4, "--seeds", 2]
    code, told, complaint = said(capsys, "runs", "bisect", *both, *words)
    assert code == 1 and "differ in nothing but the seed" in complaint
    change = ["--set", "recipe.peak_rate=0.0004", "--set", "recipe.steps=4"]
    assert said(capsys, "train", "tiny", *change, "--runs", tmp_path)[0] == 0
    assert said(capsys, "train", "tiny", *change[2:], "--runs", tmp_path)[0] == 0
    both = ["tiny-001", "tiny-002", "--runs", tmp_path]
    code, told, _ = said(capsys, "runs", "bisect", *both, "--seeds", 2)
    assert code == 0 and "in 4 short runs" in told and "recipe.peak_rate: " in told


def test_code_is_a_change_that_bisect_asks_for(capsys, tmp_path):
    """Two copies of the project, in one of which the rate never rises."""
    runs, before, after = (tmp_path / name for name in ("runs", "before", "after"))
    for folder in (before, after):
        shutil.copytree(PROJECT / "cort33x_lib", folder / "cort33x_lib")
        (folder / "data").symlink_to(PROJECT / "data")
    file = after / "cort33x_lib" / "training" / "schedule.py"
    text = file.read_text(encoding="utf-8")
    old = "return recipe.final_rate + (recipe.peak_rate - recipe.final_rate) * height"
    assert text.count(old) == 1
    file.write_text(text.replace(old, "return recipe.final_rate / 100"))
    change = ["--set", "model.latent_channels=32"]  # which this model does not use
    for folder, words in [(before, []), (after, change)]:
        command = [*PROGRAM, "train", "tiny", *words, "--runs", str(runs)]
        subprocess.run(command, cwd=folder, env=environment(), check=True)
    both = ["runs", "bisect", "tiny-001", "tiny-002", "--runs", runs]
    both += ["--seeds", 3]
    named = "training/schedule.py: learning_rate has changed"
    code, _, complaint = said(capsys, *both)
    assert code == 1
    assert f"the code differs: {named}; expected --code BEFORE AFTER" in complaint
    code, _, complaint = said(capsys, *both, "--code", after, before)
    assert code == 1
    assert f"{after} does not hold the code of tiny-001: {named}" in complaint
    told, complaint = call(*both, "--code", before, after)
    first, code, latent = told.splitlines()
    assert first.startswith("All changes, in 12 short runs: +")
    assert code.startswith("code: +") and code.endswith("costs.")
    assert latent == "model.latent_channels: not one bit moved."
    assert "12/12" in complaint
    code, told, _ = said(capsys, *both, "--steps", 4, "--without-code")
    assert code == 0
    assert told.splitlines()[1] == "model.latent_channels: not one bit moved."
    code, _, _ = said(capsys, *both, "--without-code", "--code", before, after)
    assert code == 2


def test_a_run_is_exported(capsys, runs, tmp_path):
    out = tmp_path / "run.csv"
    code, _, _ = said(capsys, "runs", "show", "tiny-001", "--runs", runs, "--csv", out)
    assert code == 0 and len(out.read_text(encoding="utf-8").splitlines()) == 21
    with open(out, newline="", encoding="utf-8") as file:
        rows = [*csv.DictReader(file)]
    measured = Run(runs / "tiny-001").metrics()
    assert [float(row["loss"]) for row in rows] == [m["loss"] for m in measured]
    words = ["--tensorboard", tmp_path / "events" / "tiny-001"]
    code, _, _ = said(capsys, "runs", "show", "tiny-001", "--runs", runs, *words)
    events = EventAccumulator(str(words[1])).Reload()
    losses = events.Scalars("loss")
    assert code == 0 and [event.step for event in losses] == [*range(1, 21)]
    told = [event.value for event in losses]
    assert told == pytest.approx([m["loss"] for m in measured])
    assert len(events.Scalars("held_out")) == 2


def test_runs_are_listed(capsys, runs, tmp_path):
    lines = said(capsys, "runs", "list", "--runs", runs)[1].splitlines()
    assert lines[0].split()[:2] == ["run", "started"]
    assert [line.split()[0] for line in lines[1:]] == ["tiny-001", "tiny-002"]
    _, _, complaint = said(capsys, "runs", "list", "--runs", tmp_path / "none")
    assert "holds no runs" in complaint


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
def test_ctrl_c_keeps_the_run_and_says_how_to_go_on(tmp_path):
    words = ["train", "tiny", "--set", "recipe.steps=200", "--runs", tmp_path]
    process = subprocess.Popen(
        [*PROGRAM, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        cwd=PROJECT,
        env=environment(),
    )
    log = tmp_path / "tiny-001" / "metrics.jsonl"
    while not log.exists() or log.read_text().count("\n") < 5:
        time.sleep(0.05)
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in complaint
    run = Run(tmp_path / "tiny-001")
    stopped = newest_checkpoint(run.checkpoints).step
    assert 200 > stopped == run.metrics()[-1]["step"] >= 5
    advice = shlex.split(complaint.strip().splitlines()[-1])
    assert advice[:4] == ["python", "-m", "cort33x_lib", "resume"]
    printed, _ = call(*advice[3:])
    assert "tiny-001: 200 steps" in printed
    assert newest_checkpoint(run.checkpoints).step == 200
    assert [m["step"] for m in run.metrics()] == list(range(1, 201))
    assert "has all its" in call(*advice[3:])[0]


def in_a_terminal(words, until=None):
    """The code of a command, what it printed, and what a terminal saw beside that.

    Ctrl-C is pressed once the terminal has seen `until`.
    """
    fcntl, pty, termios = map(import_module, ("fcntl", "pty", "termios"))
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    process = subprocess.Popen(
        [*PROGRAM, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=theirs,
        cwd=PROJECT,
        env=environment(),
    )
    os.close(theirs)
    seen, pressed = b"", False
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # Linux tells the end of a terminal so
            break
        if not part:
            break
        seen += part
        if until and until in seen and not pressed:
            process.send_signal(signal.SIGINT)
            pressed = True
    os.close(ours)
    printed = process.communicate(timeout=60)[0].decode()
    return process.returncode, printed, seen


@pytest.mark.skipif(os.name != "posix", reason="a terminal as POSIX has it")
def test_a_terminal_sees_the_bar_move(tmp_path):
    code, printed, seen = in_a_terminal(["train", "tiny", "--runs", tmp_path])
    assert code == 0
    assert b"20/20" in seen and b"loss=" in seen
    assert printed.startswith("tiny-001: 20 steps in ") and "\r" not in printed


@pytest.mark.skipif(os.name != "posix", reason="a terminal as POSIX has it")
@pytest.mark.parametrize(
    ("words", "bar"),
    [
        ("evaluate data/runs/tour-model --stories 10000000", b"collect:"),
        ("evaluate data/runs/tour-model --stories 9000", b"evaluate:"),
        ("train tiny --set corpus.documents=10000000", b"collect:"),
    ],
)
def test_long_work_has_a_bar_and_can_be_stopped(tmp_path, words, bar):
    words = [*words.split(), "--runs", tmp_path]
    code, printed, seen = in_a_terminal(words, until=bar)
    assert (code, printed) == (130, "")
    assert seen.rstrip().endswith(b"Stopped.") and b"Traceback" not in seen


def test_generate_writes_from_a_run_and_a_folder(capsys, runs):
    words = ["generate", "tiny", "--runs", runs, "--tokens", 30, "--seed"]
    first, again, other = [said(capsys, *words, seed)[1] for seed in (5, 5, 6)]
    assert first == again != other
    model = PROJECT / "data" / "runs" / "tour-model"
    told, _ = call("generate", model, "--prompt", "Mia", "--tokens", 20)
    assert told.startswith("Mia") and len(told) > 20


def test_what_a_model_writes_cannot_steer_the_terminal(tmp_path):
    """A model that knows two tokens: an escape and a byte that is no character."""
    tokenizer = Tokenizer(())
    config = replace(CONFIGS["tiny"], vocabulary=tokenizer.vocabulary)
    model = Transformer(config)
    model.embedding.weight.data.zero_()
    model.embedding.weight.data[:, 0] = 1.0
    model.embedding.weight.data[0x1B, 0] = 5.0
    save_folder(tmp_path / "hostile", model, tokenizer)
    words = ["--prompt", "\x1b[2J\u202e", "--tokens", 9, "--temperature", 0]
    told, _ = call("generate", tmp_path / "hostile", *words)
    assert told == r"\x1b[2J\u202e" + r"\x1b" * 9 + "\n"


def test_visible_keeps_text_and_spells_out_what_steers():
    kept = "Zoë told 3 plums\n\tto 雪, ok? \U0001f600"
    assert visible(kept) == kept
    steering = [0, 7, 8, 13, 27, 127, 0x9B, 0x200E, 0x202E, 0x2028, 0xE000]
    for point in steering:
        assert visible(chr(point)).isascii() and visible(chr(point)).isprintable()


def test_evaluate_says_bits_per_byte_and_floor(capsys, runs):
    _, planned, _ = said(capsys, "evaluate", "tiny-001", "--runs", runs)
    last = Run(runs / "tiny-001").metrics()[-1]
    assert f"{last['held_out']:.3f}" in planned
    stories = list(World.load().stories("test", 5))
    model = PROJECT / "data" / "runs" / "tour-model"
    _, scored, _ = said(capsys, "evaluate", model, "--stories", 5)
    rows = {line.split()[0]: line.split()[1:] for line in scored.splitlines()[1:3]}
    size = sum(story.nbytes for story in stories)
    floor = sum(story.nll for story in stories) / 0.6931471805599453 / size
    assert float(rows["floor"][1]) == pytest.approx(floor, abs=5e-4)
    assert float(rows["model"][1]) > float(rows["floor"][1])
    assert f"{size:,} bytes" in scored


def test_corpus_tokenizer_and_tokens(capsys, tmp_path):
    folder, file = tmp_path / "corpus", tmp_path / "tokenizer.json"
    own = tmp_path / "own"
    own.mkdir()
    for name in ("a", "b"):
        (own / f"{name}.txt").write_text("The same words again. " * 20)
    (own / "broken.txt").write_bytes(b"\xff\xfe\x00")
    words = ["build", folder, "stories:30", f"folder:{own}", "--deduplicate"]
    printed, complaint = call("corpus", *words)
    documents = load_corpus(folder)
    assert (
        len(documents) == 31
        and documents[:30] == list(exact_duplicates(documents))[:30]
    )
    assert manifest(documents)["fingerprint"] in printed
    assert "broken.txt" in complaint
    ledgers = json.loads((folder / "ledger.json").read_text(encoding="utf-8"))
    assert [ledger["documents"] for ledger in ledgers] == [[32, 31], [31, 31]]
    said(capsys, "tokenizer", "train", folder, file, "--vocabulary", 400)
    expected = train_tokenizer((d.text for d in documents), 400)
    assert Tokenizer.load(file) == expected
    _, printed, _ = said(
        capsys, "tokenizer", "encode", file, folder, tmp_path / "c.tokens"
    )
    tokens = Tokens.load(tmp_path / "c.tokens", expected)
    assert len(tokens) == 31 and f"{len(tokens.ids):,} tokens" in printed
    assert expected.decode(tokens.document(30)[:-1]) == documents[30].text
    _, _, complaint = said(capsys, "corpus", "build", folder, "tales:3")
    assert "source 'tales:3': expected one of stories:COUNT" in complaint
    _, _, complaint = said(capsys, "corpus", "build", folder, "public:nowhere")
    assert "no corpus 'nowhere'; there are: tiny-shakespeare" in complaint


def test_a_reader_who_has_had_enough_is_no_trouble(runs):
    command = shlex.join([*PROGRAM, "runs", "show", "tiny", "--runs", str(runs)])
    done = subprocess.run(
        f"{command} | head -1; true",
        shell=True,
        capture_output=True,
        encoding="utf-8",
        cwd=PROJECT,
        env=environment(),
    )
    assert done.stdout.startswith("run ") and done.stderr == ""


def test_tables_and_curves():
    assert columns(["a", "bb"], [["x", 1], ["long", 1000]]) == (
        "a        bb\nx         1\nlong  1,000"
    )
    assert sparkline([0, 1, 2, 3]) == "▁▃▆█"
    assert sparkline([1.0] * 100) == "▁" * 60
    assert len(sparkline(list(range(1000)))) == 60
