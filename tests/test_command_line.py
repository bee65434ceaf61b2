"""What every script does alike: exit codes, one message for a mistake, quietness, bars, Ctrl-C."""

import json
import os
import pty
import re
import signal
import sqlite3
import struct
import subprocess
import sys
import termios
import time
from fcntl import ioctl
from importlib.util import find_spec

import pytest

from tests.conftest import ROOT, SMALL_MODEL, make_environment, run_script
from ultralight.problems import InputError
from ultralight.settings import TrainSettings

FLAGS = [item for name, value in SMALL_MODEL.items() for item in (f"--{name}", str(value))]


def train_command(orders, output, *flags):
    return ["train.py", "configs/car_queries.yaml", "--dataset", orders, "--output_dir", output, *FLAGS, "--export_onnx", "false",
            "--quantize", "false", *flags]  # fmt: skip


def on_a_terminal(*command, stdout=None):
    """Runs a script with a terminal as its standard error (and output); returns its exit code and what the terminal shows."""
    reader, writer = pty.openpty()
    ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    environment = {**os.environ, "NO_COLOR": "1", "PYTHONIOENCODING": "utf-8"}
    process = subprocess.Popen([sys.executable, *map(str, command)], cwd=ROOT, env=environment, stdout=stdout or writer, stderr=writer)
    os.close(writer)
    shown = b""
    try:
        while block := os.read(reader, 1 << 16):
            shown += block
    except OSError:  # how Linux says that nobody writes any more
        pass
    os.close(reader)
    return process.wait(), shown.decode()


@pytest.mark.parametrize(
    "command",
    [
        ["train.py", "--dataset", "no_such.jsonl"],
        ["train.py", "--epochs", "0"],
        ["pretrain.py"],
        ["export.py", "--model", "no_such"],
        ["predict.py", "--model", "no_such", "x"],
        ["predict.py", "--model", "README.md", "x"],
        ["predict.py", "--max_seq_length", "1000000", "x"],
        ["predict.py"],
        ["ultra_light_predictor_example.py", "no_such"],
        ["-m", "benchmarks.leakage", "--measured", "LICENSE"],
        ["-m", "benchmarks.learning_curve", "--sizes", "0"],
    ],
    ids=" ".join,
)
def test_a_mistake_is_one_message(command):
    result = run_script(*command)
    assert result.returncode == 2
    assert result.stdout == ""
    assert re.search(r"^(\w+\.py: )?error: ", result.stderr, re.MULTILINE)
    assert "Traceback" not in result.stderr


def test_debug_shows_where_an_error_came_from():
    result = run_script("predict.py", "--model", "no_such", "x", "--debug")
    assert result.returncode == 2
    assert "Traceback" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("error: no_such does not exist")


def test_a_text_that_is_not_utf8_is_a_mistake(tmp_path):
    (tmp_path / "corpus.txt").write_bytes("汽车".encode("gbk") + b"\n")
    result = run_script("pretrain.py", "--corpus", tmp_path / "corpus.txt", "--output_dir", tmp_path / "out")
    assert result.returncode == 2
    assert "corpus.txt: not UTF-8" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_quiet_run_says_the_result_only(orders, tmp_path):
    result = run_script(*train_command(orders, tmp_path / "quiet", "--epochs", 2, "--quiet"))
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert result.stdout.lstrip().startswith("label (test)")
    assert "eval_loss" not in result.stdout


def test_a_log_file_gets_lines_without_bars(orders, tmp_path):
    result = run_script(*train_command(orders, tmp_path / "logged", "--epochs", 2))
    assert result.returncode == 0, result.stderr
    assert "90 train, 11 validation, 11 test queries" in result.stderr
    assert re.findall(r"step (\d+) of 12: eval_loss", result.stderr) == ["6", "12"]
    for text in (result.stdout, result.stderr):
        assert "\r" not in text
        assert "\x1b" not in text


def test_a_terminal_shows_bars_and_no_colours(orders, tmp_path):
    code, shown = on_a_terminal(*train_command(orders, tmp_path / "seen", "--epochs", 2, "--distillation", "true", "--teacher_folds", 2))
    assert code == 0, shown
    for bar in ("tokenizing: 100%", "training the linear model: 100%", "12/12 ["):
        assert bar in shown
    assert "teacher 2 of 2" in shown
    assert not re.search(r"\x1b\[[0-9;]*m", shown)


@pytest.mark.parametrize(("known", "bar"), [(True, r"predicting: 100%\|.*\| 36/36 \["), (False, r"predicting: 36 queries \[")])
def test_predictions_have_a_bar_whether_their_number_is_known_or_not(trained, tmp_path, known, bar):
    (tmp_path / "queries.txt").write_text("来一杯\n" * 36, encoding="utf-8")
    source = tmp_path / "queries.txt"
    if not known:
        os.mkfifo(tmp_path / "pipe.txt")
        subprocess.Popen(["cp", source, tmp_path / "pipe.txt"])
        source = tmp_path / "pipe.txt"
    command = ["predict.py", "--model", trained[0], "--input", source, "--output", tmp_path / "answers.jsonl"]
    code, shown = on_a_terminal(*command)
    assert code == 0, shown
    assert re.search(bar, shown), shown
    assert len((tmp_path / "answers.jsonl").read_text(encoding="utf-8").splitlines()) == 36


def test_a_quiet_prediction_on_a_terminal_shows_nothing(trained, tmp_path):
    (tmp_path / "queries.txt").write_text("来一杯\n" * 5, encoding="utf-8")
    command = ["predict.py", "--model", trained[0], "--input", tmp_path / "queries.txt", "--output", tmp_path / "a.jsonl", "--quiet"]
    assert on_a_terminal(*command) == (0, "")


def test_a_reader_that_has_enough_is_no_error(trained, tmp_path):
    (tmp_path / "queries.txt").write_text("来一杯\n" * 20_000, encoding="utf-8")
    command = [sys.executable, "predict.py", "--model", str(trained[0]), "--input", str(tmp_path / "queries.txt")]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 128 + signal.SIGPIPE


def start(*command):
    """Starts a script that Ctrl-C will reach, even where the tests run in the background."""
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def interrupt(process):
    process.send_signal(signal.SIGINT)
    try:
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    return process.returncode, errors


def test_an_interrupted_training_keeps_its_checkpoint_and_goes_on(orders, tmp_path):
    output = tmp_path / "stopped"
    process = start(*train_command(orders, output, "--epochs", 2000, "--quiet"))
    while not list(output.glob("checkpoints/checkpoint-*/trainer_state.json")):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    code, errors = interrupt(process)
    assert code == 130
    assert errors == "interrupted; the same command with --resume goes on from the last checkpoint\n"
    states = [path.read_text(encoding="utf-8") for path in output.glob("checkpoints/checkpoint-*/trainer_state.json")]
    step = max(json.loads(state)["global_step"] for state in states if state)
    resumed = run_script(*train_command(orders, output, "--epochs", step // 6 + 1, "--resume"))
    assert resumed.returncode == 0, resumed.stderr
    assert re.findall(r"step (\d+) of \d+: loss", resumed.stderr) == [str(step + 6)]


def test_an_interrupted_import_is_no_stack_trace():
    process = start("-X", "importtime", "train.py")
    while "transformers" not in process.stderr.readline():
        assert process.poll() is None
    code, errors = interrupt(process)
    assert code == 130
    assert "Traceback" not in errors
    assert [line for line in errors.splitlines() if "import time:" not in line] == [
        "interrupted; the same command with --resume goes on from the last checkpoint"
    ]


@pytest.mark.parametrize("name", ["tensorboard", "trackio"])
def test_a_report_that_is_not_installed_is_a_mistake(name):
    if find_spec(name):
        assert TrainSettings(report_to=[name]).report_to == [name]
    else:
        with pytest.raises(InputError, match=rf"--report_to {name}: is not installed; accepted: after `pip install -r requirements-report"):
            TrainSettings(report_to=[name])
    with pytest.raises(InputError, match="--report_to wandb: accepted: 'none', 'tensorboard', 'trackio'"):
        TrainSettings(report_to=["wandb"])


def test_tensorboard_gets_the_curves(orders, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    output = tmp_path / "watched"
    result = run_script(*train_command(orders, output, "--epochs", 3, "--report_to", "tensorboard"))
    assert result.returncode == 0, result.stderr
    (folder,) = (output / "runs").iterdir()
    events = EventAccumulator(str(folder)).Reload()
    assert [event.step for event in events.Scalars("eval/micro_f1")] == [6, 12, 18]
    assert len(events.Scalars("train/loss")) == 3
    assert (output / "model.safetensors").is_file()


@pytest.mark.slow
def test_trackio_gets_the_curves_offline(orders, tmp_path):
    python = make_environment(tmp_path / "environment", "-r", ROOT / "requirements.txt", "-r", ROOT / "requirements-report.txt")
    command = train_command(orders, tmp_path / "watched", "--epochs", 3, "--report_to", "trackio", "tensorboard")
    environment = {**os.environ, "TRACKIO_DIR": str(tmp_path / "trackio"), "HF_HUB_OFFLINE": "1"}
    result = subprocess.run([python, *map(str, command)], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "\x1b" not in result.stdout + result.stderr
    with sqlite3.connect(tmp_path / "trackio" / "ultralight.db") as database:
        rows = [json.loads(row[0]) for row in database.execute("select metrics from metrics order by step")]
    assert [row["train/global_step"] for row in rows if "eval/micro_f1" in row] == [6, 12, 18]
    assert list((tmp_path / "watched" / "runs").rglob("*tfevents*"))
