"""The card of a trained folder: what it says, that its examples run, and whose README it may replace."""

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import model_index_to_eval_results
from safetensors.torch import load_file

from tests.conftest import ROOT, RUN_SNIPPETS, run_script
from ultra_light_predictor import UltraLightPredictor
from ultralight.model_card import check_card, make_card, write_card
from ultralight.model_folder import add_companions, files_to_push
from ultralight.problems import InputError
from ultralight.schema import LabelSchema


def snippets(card, language="python"):
    return re.findall(rf"^```{language}\n(.*?)^```", card, flags=re.DOTALL | re.MULTILINE)


def check_snippets(card, cwd, **environment):
    """Runs all Python examples of a card in a fresh process; what they print is what their comments say."""
    code = snippets(card)
    result = run_script("-c", RUN_SNIPPETS, json.dumps(code), cwd=cwd, **environment)
    assert result.returncode == 0, result.stderr[-3000:]
    printed = json.loads(result.stdout.splitlines()[-1])
    for snippet, shown in zip(code, printed, strict=True):
        assert shown.strip()
        for promised in re.findall(r"^# (.*)$", snippet, flags=re.MULTILINE):
            assert shown.strip() == promised
    return code


@pytest.fixture
def copy_of(trained, tmp_path):
    return Path(shutil.copytree(trained[0], tmp_path / "copied_model"))


def change(folder, **facts):
    """Another story of the training."""
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["training_facts"] |= facts
    path.write_text(json.dumps(config, ensure_ascii=False), encoding="utf-8")


def test_metadata_are_what_huggingface_hub_reads(trained):
    folder, metrics = trained
    card = ModelCard.load(folder / "README.md")
    data = card.data.to_dict()
    assert (data["language"], data["license"], data["library_name"]) == ("zh", "apache-2.0", "transformers")
    assert data["pipeline_tag"] == "text-classification"
    assert {"datasets", "base_model"} & set(data) == set()
    raw = yaml.safe_load((folder / "README.md").read_text(encoding="utf-8").split("---")[1])
    _, results = model_index_to_eval_results(raw["model-index"])
    assert results == card.data.eval_results
    values = {result.metric_name: result.metric_value for result in results}
    assert values["micro-F1 (fp32)"] == pytest.approx(metrics["test"]["micro_f1"], abs=1e-4)
    assert values["every label right (INT8)"] == pytest.approx(metrics["test_int8"]["exact_match"], abs=1e-4)
    assert {(result.dataset_name, result.dataset_split) for result in results} == {(Path(dataset_of(folder)).stem, "test")}
    check_card(card.content, folder)


def dataset_of(folder):
    return json.loads((folder / "config.json").read_text(encoding="utf-8"))["training_facts"]["dataset"]


def test_the_body_tells_of_the_run(trained):
    folder, metrics = trained
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "| 饮料 | 茶、咖啡、果汁 | 无 |" in card
    for label, scores in metrics["test_int8"]["per_label"].items():
        assert f"| {label} | {scores['f1']:.3f} | {scores['accuracy']:.3f} | {scores['support']} |" in card
    for plot in ("training", "per_label_f1", "confusion"):
        assert f"(plots/{plot}.png)" in card
    assert f"{metrics['latency']['median_ms']} / {metrics['latency']['p99_ms']} ms" in card
    assert f"| {metrics['deployable_bytes'] / 1e6:.2f} MB |" in card
    assert "Where it started: random weights." in card
    # Where the dataset lies on its owner's disk is not said.
    assert str(Path(dataset_of(folder)).parent) not in card


def test_every_example_runs(copy_of, tmp_path):
    code = check_snippets((copy_of / "README.md").read_text(encoding="utf-8"), copy_of, HF_MODULES_CACHE=str(tmp_path / "modules"))
    assert len(code) >= 3


def test_what_is_on_the_hub_is_linked(copy_of):
    change(copy_of, hub_dataset="someone/queries", hub_base_model="someone/encoder", model_name="someone/encoder", license="mit")
    card = ModelCard(make_card(copy_of, "someone/orders"))
    assert card.data.datasets == ["someone/queries"]
    assert card.data.base_model == "someone/encoder"
    assert card.data.license == "mit"
    assert card.data.model_name == "orders"
    assert "(https://huggingface.co/datasets/someone/queries)" in card.text
    assert 'from_pretrained("someone/orders"' in card.text


def test_a_model_that_began_as_the_base_says_what_that_has_read(copy_of):
    change(copy_of, model_name="base")
    card = make_card(copy_of)
    texts = (ROOT / "base" / "README.md").read_text(encoding="utf-8").split("## Texts")[1]
    rows = [line.split("|")[-2].strip() for line in texts.splitlines() if line.startswith("| ")]
    assert len(rows) > 10
    for licence in rows:
        assert f"| {licence} |" in card


def test_the_shipped_model_has_a_card(tmp_path):
    folder = tmp_path / "shipped"
    for name in [name for name in files_to_push(ROOT) if name != "README.md"]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)
    add_companions(folder, LabelSchema.from_dict(UltraLightPredictor(folder).label_schema))
    assert write_card(folder)
    parameters = sum(weights.numel() for weights in load_file(folder / "model.safetensors").values())
    assert f"({parameters:,} parameters)" in (folder / "README.md").read_text(encoding="utf-8")


def test_what_was_measured_beside_other_models_is_shown(copy_of):
    assert "Beside other models" not in make_card(copy_of)
    table = "|  | micro-F1 |\n| --- | --- |\n| fastText | 0.8 |"
    path = copy_of / "benchmarks" / "results" / "compare.md"
    path.parent.mkdir(parents=True)
    path.write_text(f"# Title\n\nHow.\n\n{table}\n\n## Against the old recipe\n\n![plot](plot.png)\n", encoding="utf-8")
    card = make_card(copy_of)
    assert f"## Beside other models\n\nHow.\n\n{table}\n\n## Limits" in card
    assert "plot.png" not in card


def test_names_cannot_break_a_table(copy_of):
    path = copy_of / "config.json"
    path.write_text(path.read_text(encoding="utf-8").replace("冰的", "冰|的\\n"), encoding="utf-8")
    assert "| 冷热 | 冰\\|的 、热的 | 无 |" in make_card(copy_of)


@pytest.mark.parametrize("text", ["# My project\n", "---\nlicense: mit\n---\n# My own card\n", ""])
def test_a_readme_of_somebody_is_never_replaced(copy_of, text, caplog):
    readme = copy_of / "README.md"
    readme.write_text(text, encoding="utf-8")
    assert not write_card(copy_of)
    assert readme.read_text(encoding="utf-8") == text
    assert len(caplog.records) == 1
    assert "left as it is" in caplog.text


def test_a_generated_card_is_renewed_until_it_is_edited(copy_of):
    readme = copy_of / "README.md"
    change(copy_of, license="mit")
    assert write_card(copy_of)
    assert ModelCard.load(readme).data.license == "mit"
    edited = readme.read_text(encoding="utf-8").replace("## Limits\n", "## Limits\n\n- It likes coffee.\n")
    readme.write_text(edited, encoding="utf-8")
    assert not write_card(copy_of)
    assert readme.read_text(encoding="utf-8") == edited


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("license: apache-2.0\n", "", "metadata: no license"),
        ("language: zh\n", "language: [zh\n", "metadata: cannot be read"),
        ("---\nlanguage", "language", "metadata: no language"),
        ("(plots/per_label_f1.png)", "(plots/none.png)", r"\(plots/none.png\): no such file"),
        ("      name: Implicit label prediction\n", "      title: x\n", "does not read the model-index back"),
        ("    - type: f1\n", "    - kind: f1\n", "metadata: cannot be read"),
    ],
)
def test_a_broken_card_is_refused(trained, old, new, expected):
    card = (trained[0] / "README.md").read_text(encoding="utf-8")
    assert old in card
    with pytest.raises(InputError, match=expected):
        check_card(card.replace(old, new), trained[0])
