"""Pushing with the real client to a Hub on this machine, and loading by name in fresh processes with empty caches."""

import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from modeling_ultralight import CODE_FILES
from tests.conftest import SMALL_MODEL, order_rows, run_script
from tests.hub_server import serve_hub
from tests.test_model_card import check_snippets, snippets
from ultra_light_predictor import UltraLightPredictor
from ultralight.hub import PushError, push_folder

NAME = "someone/orders"
QUERIES = [row["query"] for row in order_rows()][:12]
FILES = {
    *CODE_FILES, "README.md", "QueryLabels.json", "config.json", "metrics.json", "model.safetensors", "onnx/model.onnx",
    "onnx/model_quantized.onnx", "plots/confusion.png", "plots/per_label_f1.png", "plots/training.png", "special_tokens_map.json",
    "tokenizer.json", "tokenizer_config.json", "ultra_light_predictor.py",
}  # fmt: skip
CLUTTER = ("checkpoints/checkpoint-7/model.safetensors", "config.json.partial", ".env", "notes.txt", "plots/.draft.png", "teacher_0/x.json")
OWN_CARD = "---\nlicense: mit\n---\n# My card\n"
PUSH = """
import json, os, sys
from ultralight.hub import PushError, push_folder
from ultralight.problems import InputError
for task in json.loads(sys.argv[1]):
    os.environ["HF_TOKEN"] = task.pop("token", os.environ["HF_TOKEN"])
    try:
        print(json.dumps({"pushed": push_folder(**task)}))
    except (PushError, InputError) as error:
        print(json.dumps({"error": type(error).__name__, "message": str(error)}))
"""
LIGHT = """
import json, sys
from ultra_light_predictor import UltraLightPredictor
int8 = UltraLightPredictor(sys.argv[1]).probabilities(json.loads(sys.argv[2])).tolist()
assert not {"torch", "transformers"} & set(sys.modules)
print(json.dumps(int8))
"""
BY_NAME = """
import json, sys
from optimum.onnxruntime import ORTModelForSequenceClassification
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline
from ultra_light_predictor import UltraLightPredictor
name, queries = sys.argv[1], json.loads(sys.argv[2])
model = AutoModelForSequenceClassification.from_pretrained(name, trust_remote_code=True).eval()
tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=True)
def onnx(file):
    return ORTModelForSequenceClassification.from_pretrained(name, subfolder="onnx", file_name=file, trust_remote_code=True)
def shown(model, **more):
    items = pipeline("text-classification", model=model, top_k=None, **more)(queries)
    return [[{item["label"]: item["score"] for item in row}[names[i]] for i in range(len(names))] for row in items]
names = model.config.id2label
print(json.dumps({
    "AutoModel": [model(**tokenizer(query, return_tensors="pt")).logits.sigmoid()[0].tolist() for query in queries],
    "pipeline": shown(name, trust_remote_code=True),
    "Optimum fp32": shown(onnx("model.onnx"), tokenizer=tokenizer),
    "Optimum INT8": shown(onnx("model_quantized.onnx"), tokenizer=tokenizer),
    "predictor fp32": UltraLightPredictor(name, quantize=False).probabilities(queries).tolist(),
    "predictor INT8": UltraLightPredictor(name).probabilities(queries).tolist(),
}))
"""

BY_NAME_5 = """
import json, sys
import transformers
from transformers import pipeline
from ultra_light_predictor import UltraLightPredictor
name, queries = sys.argv[1], json.loads(sys.argv[2])
classify = pipeline("text-classification", model=name, trust_remote_code=True, top_k=None)
names = classify.model.config.id2label
items = [{item["label"]: item["score"] for item in row} for row in classify(queries)]
print(json.dumps({
    "version": transformers.__version__, "fp32": [[row[names[i]] for i in range(len(names))] for row in items],
    "int8": UltraLightPredictor(name).probabilities(queries).tolist(),
}))
"""


@pytest.fixture(scope="module")
def hub():
    with serve_hub() as hub:
        yield hub
        assert hub.unknown == []


def a_stranger(hub, folder, token=None):
    """Environment of somebody who has never fetched anything."""
    known = {"HF_TOKEN": hub.token if token is None else token, "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0"}
    return {**known, "HF_HOME": str(folder / "hf_home"), "HF_MODULES_CACHE": str(folder / "modules")}


def copied(trained, folder):
    """A trained folder with things beside it that are nobody's business."""
    shutil.copytree(trained[0], folder)
    for name in CLUTTER:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("secret", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def pushed(hub, trained, tmp_path_factory):
    """A trained folder that `export.py` has pushed, and what that said."""
    home = tmp_path_factory.mktemp("pusher")
    folder = copied(trained, home / "orders_model")
    result = run_script(
        "export.py", "--model", folder, "--push_to_hub", NAME, "--private", **a_stranger(hub, home)
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    return folder, result.stdout


def test_a_push_is_one_commit_of_what_belongs_there(hub, pushed):
    folder, said = pushed
    repo = hub.repos[NAME]
    assert repo.private
    first, second = repo.commits  # the Hub's own, when the repository was made, and ours
    assert set(second.files) - set(first.files) == FILES
    assert f"pushed: {hub.url}/{NAME}/commit/{second.oid}" in said
    for name in FILES:
        assert second.files[name] == (folder / name).read_bytes(), name
    assert all((folder / name).read_text(encoding="utf-8") == "secret" for name in CLUTTER)


def test_a_stranger_gets_the_same_probabilities_by_name(hub, pushed, tmp_path):
    folder, _ = pushed
    result = run_script("-c", BY_NAME, NAME, json.dumps(QUERIES), **a_stranger(hub, tmp_path))
    assert result.returncode == 0, result.stderr[-3000:]
    shown = json.loads(result.stdout.splitlines()[-1])
    fp32 = UltraLightPredictor(folder, quantize=False).probabilities(QUERIES)
    int8 = UltraLightPredictor(folder).probabilities(QUERIES)
    for how, probabilities in shown.items():
        expected, tolerance = (int8, 1e-3) if "INT8" in how else (fp32, 1e-5)
        assert len(probabilities) == len(QUERIES)
        for row, wanted in zip(probabilities, expected, strict=True):
            assert row == pytest.approx(wanted.tolist(), abs=tolerance), how


@pytest.mark.slow
def test_a_stranger_with_transformers_5_gets_them_too(hub, pushed, transformers_5, tmp_path):
    """With the release of huggingface_hub that comes with it, which talks to the Hub in another way."""
    folder, _ = pushed
    result = run_script(*transformers_5, "-c", BY_NAME_5, NAME, json.dumps(QUERIES), **a_stranger(hub, tmp_path))
    assert result.returncode == 0, result.stderr[-3000:]
    shown = json.loads(result.stdout.splitlines()[-1])
    assert shown["version"].startswith("5.")
    assert shown["int8"] == UltraLightPredictor(folder).probabilities(QUERIES).tolist()
    for row, wanted in zip(shown["fp32"], UltraLightPredictor(folder, quantize=False).probabilities(QUERIES), strict=True):
        assert row == pytest.approx(wanted.tolist(), abs=1e-5)


def test_the_predictor_by_name_fetches_three_files_and_needs_no_torch(hub, pushed, tmp_path):
    folder, _ = pushed
    before = len(hub.requests)
    environment = a_stranger(hub, tmp_path)
    result = run_script("-c", LIGHT, NAME, json.dumps(QUERIES), **environment)
    assert result.returncode == 0, result.stderr[-3000:]
    assert json.loads(result.stdout) == UltraLightPredictor(folder).probabilities(QUERIES).tolist()
    fetched = {path.split("/resolve/")[1].split("/", 1)[1] for method, path in hub.requests[before:] if "/resolve/" in path}
    assert fetched == {"config.json", "tokenizer.json", "onnx/model_quantized.onnx"}
    # Once fetched, it is there without a network; what was not fetched is named.
    offline = {**environment, "HF_HUB_OFFLINE": "1"}
    assert run_script("-c", LIGHT, NAME, json.dumps(QUERIES), **offline).stdout == result.stdout
    fp32 = run_script("predict.py", "--model", NAME, "--fp32", QUERIES[0], **offline)
    assert fp32.returncode == 2
    assert f"{NAME}: the model on the Hub, or what is cached of it, has no onnx/model.onnx" in fp32.stderr


def test_the_examples_of_the_pushed_card_run_anywhere(hub, pushed, tmp_path):
    environment = a_stranger(hub, tmp_path)
    card = hub.repos[NAME].head.files["README.md"].decode()
    (command,) = snippets(card, "bash")
    hf = shutil.which("hf", path=str(Path(sys.executable).parent))
    fetched = run_script("-c", "import subprocess, sys; sys.exit(subprocess.run(sys.argv[1:]).returncode)", hf, *shlex.split(command)[1:],
                         cwd=tmp_path, **environment)  # fmt: skip
    assert fetched.returncode == 0, fetched.stderr
    assert (tmp_path / "ultra_light_predictor.py").is_file()
    assert all(NAME in snippet for snippet in check_snippets(card, tmp_path, **environment))


@pytest.fixture(scope="module")
def pushes(hub, trained, tmp_path_factory):
    """Many pushes by one process: for each, the folder, what it held before, and what came of it."""
    home = tmp_path_factory.mktemp("pushes")
    folders = {name: copied(trained, home / name) for name in ("first time", "without_graphs", "a_project", "own_card", "broken_card")}
    config = json.loads((folders["without_graphs"] / "config.json").read_text(encoding="utf-8"))
    (folders["without_graphs"] / "config.json").write_text(json.dumps({**config, "thresholds": {}}, ensure_ascii=False), encoding="utf-8")
    shutil.rmtree(folders["without_graphs"] / "onnx")
    for name, text in (("a_project", "# No card\n"), ("own_card", OWN_CARD), ("broken_card", "---\nlicense: [mit\n---\n# My card\n")):
        (folders[name] / "README.md").write_text(text, encoding="utf-8")
    tasks = {
        "logged out": ("first time", {"repo_id": "someone/model", "private": True, "token": ""}),
        "wrong token": ("first time", {"repo_id": "someone/model", "token": "hf_wrong"}),
        "other account": ("first time", {"repo_id": "somebody_else/model", "token": hub.token}),
        "no name": ("first time", {"repo_id": "no//name"}),
        "no model": (".", {"repo_id": "someone/model"}),
        "broken card": ("broken_card", {"repo_id": "someone/broken"}),
        "first": ("first time", {"repo_id": "model"}),
        "public": ("without_graphs", {"repo_id": "someone/model", "private": True}),
        "second": ("without_graphs", {"repo_id": "someone/model"}),
        "project": ("a_project", {"repo_id": "someone/project"}),
        "own card": ("own_card", {"repo_id": "someone/own_card"}),
    }
    before = contents(folders["first time"])
    asked = [{"folder": str(home / name), **more} for name, more in tasks.values()]
    result = run_script("-c", PUSH, json.dumps(asked), **a_stranger(hub, home))
    assert result.returncode == 0, result.stderr[-3000:]
    answers = dict(zip(tasks, map(json.loads, result.stdout.splitlines()), strict=True))
    return folders, before, answers, result.stderr


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_later_push_replaces_what_there_was(hub, pushes):
    _, _, answers, _ = pushes
    assert "pushed" in answers["first"]
    assert "pushed" in answers["second"]
    repo = hub.repos["someone/model"]  # "model" alone: that of the account
    assert not repo.private
    _, first, second = repo.commits
    assert {name for name in first.files if name.startswith("onnx/")} == {"onnx/model.onnx", "onnx/model_quantized.onnx"}
    # Graphs of other weights do not outlive them.
    assert {name for name in second.files if name.startswith("onnx/")} == set()
    assert json.loads(second.files["config.json"])["thresholds"] == {}
    assert b"ORTModelFor" in first.files["README.md"]
    assert b"ORTModelFor" not in second.files["README.md"]


def test_somebodys_own_readme_stays_as_it_is(hub, pushes):
    folders, _, _, said = pushes
    assert (folders["a_project"] / "README.md").read_text(encoding="utf-8") == "# No card\n"
    assert b"pipeline_tag: text-classification" in hub.repos["someone/project"].head.files["README.md"]
    assert "a generated card is pushed in its stead" in said
    assert hub.repos["someone/own_card"].head.files["README.md"].decode() == OWN_CARD


@pytest.mark.parametrize(
    ("push", "reason"),
    [
        ("logged out", "you are not logged in"),
        ("wrong token", "the Hub does not know your token"),
        ("other account", "your token may not write there"),
        ("no name", "is no name of a repository"),
        ("no model", "no config.json or model.safetensors or tokenizer.json there"),
        ("broken card", "Invalid metadata in README.md"),
        ("public", "someone/model exists and is public"),
    ],
)
def test_a_refusal_is_explained(pushes, push, reason):
    answer = pushes[2][push]
    assert reason in answer["message"]
    assert answer["error"] == ("InputError" if push.startswith("no ") else "PushError")


def test_after_a_refusal_nothing_is_lost(hub, pushes):
    folders, before, answers, _ = pushes
    after = contents(folders["first time"])
    # Only the card has changed, by the push that came through: its examples name the repository now.
    assert {path for path in before | after if before.get(path) != after.get(path)} == {Path("README.md")}
    command = f"python export.py --model '{folders['first time']}' --push_to_hub someone/model --private --push_only"
    told = answers["logged out"]["message"].splitlines()
    assert told[1:] == ["Nothing is lost: the folder is complete. Push it later with", f"  {command}"]
    assert "somebody_else/model" not in hub.repos


def test_without_a_network_it_says_so(hub, trained, tmp_path):
    folder = copied(trained, tmp_path / "offline")
    task = json.dumps([{"folder": str(folder), "repo_id": "someone/offline"}])
    result = run_script("-c", PUSH, task, **{**a_stranger(hub, tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9"})
    assert "the Hub cannot be reached (ConnectionError)" in json.loads(result.stdout)["message"]


def test_in_offline_mode_it_says_so(trained, tmp_path, monkeypatch):
    folder = copied(trained, tmp_path / "offline")
    monkeypatch.setenv("HF_TOKEN", "hf_any")
    with pytest.raises(PushError, match="HF_HUB_OFFLINE is set"):
        push_folder(folder, "someone/offline")


def test_a_run_that_cannot_push_is_pushed_later_by_the_command_it_names(hub, orders, tmp_path):
    out = tmp_path / "trained_late"
    flags = [item for name, value in {**SMALL_MODEL, "epochs": 2}.items() for item in (f"--{name}", value)]
    result = run_script(
        "train.py", "configs/car_queries.yaml", "--dataset", orders, "--output_dir", out, "--export_onnx", "false", "--quantize", "false",
        "--push_to_hub", "--hub_model_id", "someone/late", "--hub_private_repo", "--license", "mit", *flags,
        **a_stranger(hub, tmp_path, token=""),
    )  # fmt: skip
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert "warning: you are not logged in" in result.stderr.lower()  # before the training
    assert f"error: {out}: not pushed to someone/late, you are not logged in" in result.stderr
    assert "trained model, metrics.json, plots/" in result.stdout
    command = re.search(r"Push it later with\n  python (.*)", result.stderr)[1]
    later = run_script(*shlex.split(command), **a_stranger(hub, tmp_path))
    assert later.returncode == 0, later.stderr[-3000:]
    repo = hub.repos["someone/late"]
    assert repo.private
    assert len(repo.commits) == 2
    assert set(repo.head.files) == (FILES | {".gitattributes"}) - {"onnx/model.onnx", "onnx/model_quantized.onnx"}
    assert b"license: mit" in repo.head.files["README.md"]


def test_training_pushes_what_it_trained(hub, orders, tmp_path):
    out = tmp_path / "trained_now"
    flags = [item for name, value in {**SMALL_MODEL, "epochs": 1}.items() for item in (f"--{name}", value)]
    result = run_script(
        "train.py", "configs/car_queries.yaml", "--dataset", orders, "--output_dir", out, "--export_onnx", "false", "--quantize", "false",
        "--push_to_hub", "--hub_model_id", "someone/now", *flags, **a_stranger(hub, tmp_path),
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    repo = hub.repos["someone/now"]
    assert f"pushed: {hub.url}/someone/now/commit/{repo.head.oid}" in result.stdout
    assert not repo.private
    assert repo.head.files["model.safetensors"] == (out / "model.safetensors").read_bytes()


def test_names_that_cannot_be_fetched_are_explained(hub, tmp_path):
    def said(code, *arguments, **environment):
        result = run_script("-c", code, *arguments, **{**a_stranger(hub, tmp_path), **environment})
        assert result.returncode == 1
        return result.stderr

    load = (
        "import sys; from ultra_light_predictor import UltraLightPredictor as P\ntry: P(sys.argv[1])\nexcept OSError as e: sys.exit(str(e))"
    )
    assert "someone/nothing does not exist here" in said(load, "someone/nothing")
    assert "RepositoryNotFoundError" in said(load, "someone/nothing")
    assert "cannot fetch it" in said(load, "someone/nothing", HF_HUB_OFFLINE="1")
    # As where it is not installed.
    absent = f"import sys; sys.modules['huggingface_hub'] = None\n{load}"
    assert "names need huggingface_hub (pip install huggingface_hub)" in said(absent, "someone/nothing")
    before = len(hub.requests)
    assert "models/none/model.onnx does not exist" in said(load, "models/none/model.onnx")
    assert "here does not exist: give a model folder" in said(load, "./here")
    assert hub.requests[before:] == []
