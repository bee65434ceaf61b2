"""What lies in the repository beside the code: the base encoder and the trained model."""

import json

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from modeling_ultralight import UltraLightForImplicitLabelPrediction, UltraLightModel
from tests.conftest import ROOT, run_script
from ultra_light_predictor import UltraLightPredictor
from ultralight.corpus import iter_lines
from ultralight.model_folder import DEPLOYABLE
from ultralight.report import folder_size
from ultralight.schema import LabelSchema
from ultralight.scores import score

MODEL_FILES = (*DEPLOYABLE, "model.safetensors", "tokenizer_config.json", "special_tokens_map.json")
LOAD = """
import json, torch
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer
base = AutoModel.from_pretrained(".", subfolder="base", trust_remote_code=True)
model = AutoModelForSequenceClassification.from_pretrained(".", trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained(".", trust_remote_code=True)
with torch.inference_mode():
    shown = model(**tokenizer("后备箱要能塞下婴儿车", return_tensors="pt")).logits.sigmoid()[0].tolist()
print(json.dumps({"base": type(base).__name__, "width": base.config.hidden_size, "probabilities": shown}))
"""


@pytest.fixture(scope="module")
def rows():
    lines = (ROOT / "data" / "car_queries" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_sizes_are_what_the_project_promises():
    assert folder_size(ROOT, DEPLOYABLE) <= 1_000_000
    assert folder_size(ROOT, MODEL_FILES) <= 5_000_000
    assert (ROOT / "base" / "model.safetensors").stat().st_size <= 4_000_000


def test_a_clone_is_a_hub_repository(tmp_path):
    """Loaded as a stranger would, in a fresh process in the repository's folder."""
    result = run_script("-c", LOAD, HF_MODULES_CACHE=str(tmp_path / "modules"))
    assert result.returncode == 0, result.stderr[-3000:]
    shown = json.loads(result.stdout)
    assert (shown["base"], shown["width"]) == ("UltraLightModel", 128)
    int8 = UltraLightPredictor(ROOT).probabilities(["后备箱要能塞下婴儿车"])[0]
    assert np.abs(int8 - shown["probabilities"]).max() < 0.1


def test_the_predictor_and_its_command_work_without_training():
    answer = UltraLightPredictor(ROOT).predict("想买台七座的商务车，油耗低点")
    assert answer["座位数"] == "六座及以上"
    result = run_script("predict.py", "想买台七座的商务车，油耗低点")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["labels"] == answer


def test_the_shipped_model_is_as_good_as_its_metrics_say(rows):
    schema = LabelSchema.from_file(ROOT / "data" / "car_queries" / "QueryLabels.json")
    predictor = UltraLightPredictor(ROOT)
    assert predictor.label_schema == schema.to_dict()
    chosen = predictor.decide(predictor.probabilities([row["query"] for row in rows]))
    scores = score(chosen, np.array([schema.encode(row["labels"]) for row in rows]), schema)
    said = json.loads((ROOT / "metrics.json").read_text(encoding="utf-8"))["test_int8"]
    # Processors round INT8 sums differently.
    assert scores["micro_f1"] == pytest.approx(said["micro_f1"], abs=0.01)


def test_embedding_weights_of_the_shipped_model_are_pruned():
    model = UltraLightForImplicitLabelPrediction.from_pretrained(ROOT)
    words = model.bert.embeddings.word_embeddings.weight
    assert (words == 0).float().mean().item() >= 0.3  # pruned, and the smallest of the others rounded away


def test_the_base_knows_where_it_comes_from():
    report = json.loads((ROOT / "base" / "pretraining.json").read_text(encoding="utf-8"))
    assert report["masked_accuracy"] > 0.2
    encoder = UltraLightModel.from_pretrained(ROOT / "base")
    assert encoder.config.training_facts["steps"] == report["steps"]
    tokenizer = PreTrainedTokenizerFast.from_pretrained(ROOT / "base")
    queries = list(iter_lines(ROOT / "data" / "car_queries" / "train.jsonl"))
    ids = [token for row in tokenizer(queries)["input_ids"] for token in row]
    assert np.mean(np.array(ids) == tokenizer.unk_token_id) < 0.015
    # The card names every text that the settings name.
    card = (ROOT / "base" / "README.md").read_text(encoding="utf-8")
    for item in report["settings"]["weights"]:
        name, _, weight = item.partition("=")
        assert (f"| {name} |" in card) == (float(weight) > 0) or name == "train"
