"""What the documents say holds: links, commands, examples and messages; the READMEs say it in both languages."""

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import LABELS, ROOT, RUN_SNIPPETS, SMALL_MODEL, order_rows, run_script, write_jsonl
from ultralight.problems import Problems
from ultralight.rows import Record, check_row
from ultralight.schema import LabelSchema

READMES = ("README.md", "README.zh-CN.md")
GUIDES = sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md") if path.name != "experiments.md")
DOCUMENTS = (*READMES, *GUIDES, "docs/experiments.md", "CONTRIBUTING.md", "base/README.md", "data/car_queries/README.md")
# Flags of programs that are not ours.
FOREIGN = {"--index-url", "--num_processes", "--cpu", "--config_file", "--preload"}
# Scripts whose flags a text may name without a command.
WITH_FLAGS = (
    "train.py",
    "pretrain.py",
    "export.py",
    "predict.py",
    "benchmarks.accuracy",
    "benchmarks.compare",
    "benchmarks.leakage",
    "benchmarks.learning_curve",
)
# Whoever follows a document has, or gets, these: data and models of one's own, and what a command writes.
OWN = re.compile(r"my_\w+|outputs/|[A-Z]+$|answers\.jsonl$|scores\.json$|someone/")
# Commands that train or measure for minutes; the others are run as they stand.
LONG = {
    "train.py",
    "pretrain.py",
    "export.py",
    "benchmarks.accuracy",
    "benchmarks.compare",
    "benchmarks.learning_curve",
    "benchmarks.scaling",
    "benchmarks.leakage",
}
# Of the folder of the project: not part of a clone.
NOT_CLONED = {".git", ".venv", ".hypothesis", ".mypy_cache", ".pytest_cache", ".ruff_cache", "__pycache__", "outputs", "my_data"}
QUICK = {**SMALL_MODEL, "epochs": 2}
# Long enough for train.py to be decided: the export refuses a model that rounding sways.
SHORT = {
    "train.py": [item for name, value in {**SMALL_MODEL, "epochs": 60}.items() for item in (f"--{name}", str(value))],
    "benchmarks.learning_curve": ["--sizes", "20", "all", "--set", *(f"{name}={value}" for name, value in QUICK.items())],
}


@cache
def text_of(name):
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(name, *languages):
    """Code blocks of these languages, in order, without their indentation."""
    found = re.findall(r"^( *)```(\w+)\n(.*?)^\1```", text_of(name), re.MULTILINE | re.DOTALL)
    return [(language, re.sub(f"^{indent}", "", code, flags=re.MULTILINE)) for indent, language, code in found if language in languages]


def inline_code(name):
    return re.findall(r"(?<!`)`([^`\n]+)`(?!`)", re.sub(r"^ *```.*?^ *```", "", text_of(name), flags=re.MULTILINE | re.DOTALL))


def shell_lines(name):
    """The commands of a document's shell blocks and of its text, each as words."""
    code = [line for _, block in blocks(name, "bash") for line in block.splitlines()]
    code += [item for item in inline_code(name) if re.match(r"(python|pip|accelerate) ", item)]
    return [shlex.split(part, comments=True) for line in code for part in re.split(r"&&|\|(?!\|)", line) if part.strip()]


def script_of(words):
    """The script that a command runs, as `train.py` or `benchmarks.accuracy`, and its arguments; (None, all) for other programs."""
    if words[:2] == ["python", "-m"]:
        return (words[2], words[3:]) if words[2].startswith("benchmarks.") else (None, words)
    place = next((place for place, word in enumerate(words) if word.endswith(".py")), None)
    return (None, words) if place is None or words[0] not in ("python", "accelerate") else (words[place], words[place + 1 :])


@cache
def flags_of(script):
    name = ["-m", script] if script.startswith("benchmarks.") else [script]
    result = run_script(*name, "--help")
    assert result.returncode == 0, result.stderr
    return set(re.findall(r"--\w+", result.stdout))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_link_leads_somewhere(name):
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(#[^)]+)?\)", text_of(name)):
        path = (ROOT / name).parent / target if target else ROOT / name
        assert path.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor[1:] in {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}, anchor


@pytest.mark.parametrize("name", DOCUMENTS)
def test_commands_name_what_there_is(name):
    for words in shell_lines(name):
        script, arguments = script_of(words)
        if script is not None:
            path = script.replace(".", "/") + ".py" if script.startswith("benchmarks.") else script
            assert (ROOT / path).is_file(), words
            assert {word for word in arguments if word.startswith("--")} <= flags_of(script), words
        for word in words:
            if re.search(r"/|\.(py|txt|yaml|jsonl?|csv|md)$", word) and not re.match(r"https?:|--", word) and not OWN.match(word):
                assert (ROOT / word).exists() or ROOT.joinpath(word).parent.name == ".venv" or word == ".venv/bin/activate", words


@pytest.mark.parametrize("name", DOCUMENTS)
def test_flags_in_the_text_exist(name):
    known = FOREIGN.union(*map(flags_of, WITH_FLAGS))
    assert {flag for item in inline_code(name) for flag in re.findall(r"--[a-z][\w-]*", item)} <= known


def without_comments(code):
    return re.sub(r" *#.*$", "", code, flags=re.MULTILINE)


def shape_of(name):
    """What the READMEs share: headings by level, tables by their rows, code without its comments, and links, each in its place."""
    text = text_of(name)
    shape = []
    for number, line in enumerate(re.sub(r"^( *)```.*?^\1```", "```", text, flags=re.MULTILINE | re.DOTALL).splitlines()):
        if heading := re.match(r"#+", line):
            shape.append(heading[0])
        elif line.startswith("|"):
            shape.append(("row", number and len(re.split(r"(?<!\\)\|", line))))
        shape += sorted(re.findall(r"\]\(([^)#]+)\)", line))
        shape += ["```"] if line.strip() == "```" else []
    return shape


def test_the_readmes_agree():
    english, chinese = READMES
    assert shape_of(english) == shape_of(chinese)
    for language in ("bash", "python", "json"):
        assert [without_comments(code) for _, code in blocks(english, language)] == [
            without_comments(code) for _, code in blocks(chinese, language)
        ]
    settings = [sorted(set(re.findall(r"`(--[a-z_]+)", text_of(name)))) for name in READMES]
    assert settings[0] == settings[1]
    figures = [
        [
            re.findall(r"\d+(?:[.,]\d+)*(?: ?%| MB| ms)?", re.sub(r"`[^`]*`", "", line))
            for line in text_of(name).splitlines()
            if line[:1] == "|"
        ]
        for name in READMES
    ]
    assert figures[0] == figures[1]


@pytest.mark.parametrize("name", [*READMES, *GUIDES])
def test_examples_of_data_are_right(name):
    schema = None
    for language, block in blocks(name, "json", "csv"):
        if language == "csv":
            header, *lines = block.strip().splitlines()
            rows = [dict(zip(header.split(","), line.rsplit(",", header.count(",")), strict=True)) for line in lines]
        else:
            rows = [json.loads(line) for line in block.strip().splitlines()]
            if "query" not in rows[0]:
                schema = LabelSchema.from_dict(rows[0])
                continue
        problems = Problems(name)
        assert all(check_row(Record("row", row), schema, problems) for row in rows)
        problems.raise_if_any()


@pytest.fixture
def workspace(tmp_path):
    """A clone of the repository with a dataset of one's own in it."""
    folder = tmp_path / "clone"
    shutil.copytree(ROOT, folder, ignore=lambda path, names: NOT_CLONED & {*names} if Path(path) == ROOT else {"__pycache__"} & {*names})
    rows = order_rows()
    write_jsonl(folder / "my_data" / "train.jsonl", [row for number, row in enumerate(rows) if number % 8])
    write_jsonl(folder / "my_data" / "test.jsonl", rows[::8])
    (folder / "my_data" / "QueryLabels.json").write_text(json.dumps(LABELS, ensure_ascii=False), encoding="utf-8")
    (folder / "my_data" / "unlabelled.txt").write_text("来三杯拿铁加冰\n烫一点的普洱打包\n", encoding="utf-8")
    return folder


def run_in(folder, command, **more):
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8", "HF_MODULES_CACHE": str(folder.parent / "modules")}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, encoding="utf-8", check=False, **more)
    assert result.returncode == 0, (command, result.stderr[-3000:])
    return result.stdout


def run_python(folder, snippets):
    """Runs snippets in one process, each in a namespace of its own; what each printed, as lines."""
    shown = run_in(folder, [sys.executable, "-c", RUN_SNIPPETS, json.dumps(snippets)])
    return [text.splitlines() for text in json.loads(shown.splitlines()[-1])]


def promised(snippet):
    """What the comments of a snippet say that it prints, in lines."""
    return [line.removeprefix("# ").removeprefix("both: ") for line in snippet.splitlines() if re.match(r"# (both: )?[\[{(]", line)]


def alike(shown, said):
    """Equal, but that processors round sums of small integers differently: scores to a tenth, names sorted by score in any order."""
    if isinstance(said, float):
        return abs(shown - said) < 0.1
    if isinstance(said, dict):
        return shown.keys() == said.keys() and all(alike(shown[key], said[key]) for key in said)
    if isinstance(said, list) and not all(isinstance(item, str) for item in said):
        return len(shown) == len(said) and all(map(alike, shown, said))
    return sorted(shown) == sorted(said)


@pytest.mark.parametrize("name", READMES)
def test_python_examples_print_what_they_say(name, workspace):
    snippets = [code for _, code in blocks(name, "python")]
    for snippet, printed in zip(snippets, run_python(workspace, snippets), strict=True):
        wanted = promised(snippet)
        assert wanted
        wanted = wanted * len(printed) if "# both: " in snippet else wanted
        for shown, said in zip(printed, wanted, strict=True):
            assert alike(ast.literal_eval(shown), ast.literal_eval(said)), shown


@pytest.mark.parametrize("name", ["docs/deployment.md", "base/README.md"])
def test_examples_that_need_no_training_run(name, workspace):
    assert all(run_python(workspace, [code for _, code in blocks(name, "python")]))


def test_the_steps_to_port_give_the_predictors_answer(workspace):
    snippet = blocks("docs/deployment.md", "python")[-1][1]
    query = re.search(r'encode\("(.+?)"\)', snippet)[1]
    own = f"from ultra_light_predictor import UltraLightPredictor; print(UltraLightPredictor('.').predict({query!r}))"
    ported, expected = run_python(workspace, [snippet, own])
    assert ported == expected


@pytest.mark.parametrize("name", [*READMES, *GUIDES])
def test_commands_that_need_no_training_run(name, workspace):
    for words in shell_lines(name):
        script, arguments = script_of(words)
        if script and script not in LONG and not any("outputs/" in word or "…" in word for word in arguments):
            run_in(workspace, [sys.executable, *(["-m", script] if script.startswith("benchmarks.") else [script]), *arguments])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["docs/your_own_labels.md", "docs/distillation.md"])
def test_a_walk_through_a_guide_works(name, workspace):
    """All its commands and examples, in order, with a smaller model."""
    for language, code in blocks(name, "bash", "python"):
        if language == "python":
            run_python(workspace, [code])
            continue
        for line in code.splitlines():
            script, arguments = script_of(shlex.split(line, comments=True))
            name = ["-m", script] if script.startswith("benchmarks.") else [script]
            run_in(workspace, [sys.executable, *name, *arguments, *SHORT.get(script, [])])
    assert list(workspace.glob("outputs/*/onnx/model_quantized.onnx"))


def strings_of(node):
    """A string of the code with … where values go, or None."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return re.sub(r"%[sd]", "…", node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
    return None


@cache
def messages_of_the_code():
    """All strings of the code; place and problem joined as `Problems` joins them."""
    found = []
    for path in [*ROOT.glob("*.py"), *ROOT.glob("ultralight/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("add", "add_once"):
                if len(node.args) == 2:
                    found.append(": ".join(strings_of(argument) or "…" for argument in node.args))
            elif text := strings_of(node):
                found.append(text)
    return found


def test_quoted_messages_are_those_of_the_code():
    text = text_of("docs/troubleshooting.md")
    cells = [line.split("` |")[0].removeprefix("| `") for line in text.splitlines() if line.startswith("| `")]
    quoted = [*cells, *(item for item in inline_code("docs/troubleshooting.md") if "…" in item)]
    assert len(quoted) > 40
    for message in quoted:
        pattern = ".*".join(map(re.escape, message.replace("\\|", "|").split("…")))
        assert any(re.search(pattern, string, re.DOTALL) for string in messages_of_the_code()), message
