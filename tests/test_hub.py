"""The trained folder as a stranger to this project would load it."""

import json

import pytest

from tests.conftest import ROOT, assert_same_answers, order_rows, run_script
from tests.test_shipped import LOAD as SHIPPED
from ultra_light_predictor import UltraLightPredictor

QUERIES = [row["query"] for row in order_rows()][:12]
LOAD = """
import json, sys, warnings
import torch, transformers
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoTokenizer, pipeline
from transformers import DataCollatorWithPadding, Trainer, TrainingArguments
folder, queries = sys.argv[1], json.loads(sys.argv[2])
config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
encoder = AutoModel.from_pretrained(folder, trust_remote_code=True)
model = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)  # transformers 5 reads the configuration for it
shown = pipeline("text-classification", model=model, tokenizer=tokenizer, top_k=None)(queries)
with torch.inference_mode():
    states = encoder.eval()(**tokenizer(queries[0], return_tensors="pt")).last_hidden_state
    own = model.eval().bert(**tokenizer(queries[0], return_tensors="pt")).last_hidden_state
pipe = pipeline("implicit-label-prediction", model=folder, trust_remote_code=True)
pipe.save_pretrained(sys.argv[3])
again = pipeline("implicit-label-prediction", model=sys.argv[3], trust_remote_code=True)
# One step of fine-tuning towards answers that are not the model's own.
arguments = TrainingArguments(sys.argv[3] + "_tuned", max_steps=1, learning_rate=1e-2, use_cpu=True, report_to=[])
rows = [{**tokenizer(query, truncation=True), "labels": [2, 1, 1]} for query in queries]
collator = DataCollatorWithPadding(tokenizer)
trainer = Trainer(model, arguments, collator, rows[:8], rows, processing_class=tokenizer)
losses = [trainer.evaluate()["eval_loss"]]
trainer.train()
losses.append(trainer.evaluate()["eval_loss"])
print(json.dumps({
    "version": transformers.__version__, "config": type(config).__name__, "labels": config.label_schema,
    "same_encoder": bool(torch.equal(states, own)), "losses": losses,
    "answers": [pipe(queries, return_scores=True), again(queries, return_scores=True, batch_size=5)],
    "probabilities": [{item["label"]: item["score"] for item in items} for items in shown],
}))
"""
ORT_PIPELINE = """
import json, sys
from optimum.onnxruntime import ORTModelForSequenceClassification
from transformers import AutoTokenizer, pipeline
from transformers.dynamic_module_utils import get_class_from_dynamic_module
folder, queries, file = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
model = ORTModelForSequenceClassification.from_pretrained(folder, subfolder="onnx", file_name=file, trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained(folder)
pipe = pipeline("text-classification", model=model, tokenizer=tokenizer, top_k=None)
own = get_class_from_dynamic_module("pipeline_ultralight.ImplicitLabelPipeline", folder)(model=model, tokenizer=tokenizer)
print(json.dumps({
    "probabilities": [{item["label"]: item["score"] for item in items} for items in pipe(queries)],
    "answers": [own(queries, return_scores=True, batch_size=size) for size in (1, 5)],
}))
"""


def expected(folder, **options):
    predictor = UltraLightPredictor(folder, **options)
    names = [f"{label}={value}" for label, values in predictor.label_schema.items() for value in values]
    return [dict(zip(names, row, strict=True)) for row in predictor.probabilities(QUERIES).tolist()]


def assert_close(shown, wanted):
    assert len(shown) == len(wanted)
    for mine, other in zip(shown, wanted, strict=True):
        assert mine == pytest.approx(other, abs=1e-3)


def check_loading(folder, tmp_path, python_arguments=(), **environment):
    result = run_script(
        *python_arguments, "-c", LOAD, folder, json.dumps(QUERIES), tmp_path / "saved_again", cwd=tmp_path,
        HF_MODULES_CACHE=str(tmp_path / "modules"), **environment,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    loaded = json.loads(result.stdout.splitlines()[-1])
    assert loaded["config"] == "UltraLightConfig"
    assert [label for label, _ in loaded["labels"]] == ["饮料", "冷热", "带走"]
    assert loaded["same_encoder"]
    assert_close(loaded["probabilities"], expected(folder, quantize=False))
    answers = UltraLightPredictor(folder, quantize=False).predict_batch(QUERIES, return_scores=True)
    assert any(answers)
    for shown in loaded["answers"]:  # the second time by what the first pipeline saved
        assert_same_answers(shown, answers)
    assert loaded["losses"][1] < loaded["losses"][0]
    return loaded


def test_a_stranger_loads_the_folder_with_transformers_4(trained, tmp_path):
    assert check_loading(trained[0], tmp_path)["version"].startswith("4.")


@pytest.mark.slow
def test_a_stranger_loads_the_folder_with_transformers_5(trained, transformers_5, tmp_path):
    assert check_loading(trained[0], tmp_path, transformers_5)["version"].startswith("5.")
    # The shipped model too, whose n-grams begin at zero and must not end there.
    shown = run_script(*transformers_5, "-c", SHIPPED, HF_MODULES_CACHE=str(tmp_path / "shipped_modules"))
    assert shown.returncode == 0, shown.stderr[-3000:]
    here = run_script("-c", SHIPPED, HF_MODULES_CACHE=str(tmp_path / "modules_here"))
    assert json.loads(shown.stdout)["probabilities"] == pytest.approx(json.loads(here.stdout)["probabilities"], abs=1e-5)


@pytest.mark.parametrize(("file", "quantize"), [("model.onnx", False), ("model_quantized.onnx", True)])
def test_pipelines_over_an_onnx_graph_say_what_the_predictor_says(trained, tmp_path, file, quantize):
    folder, _ = trained
    result = run_script("-c", ORT_PIPELINE, folder, json.dumps(QUERIES), file, cwd=tmp_path, HF_MODULES_CACHE=str(tmp_path / "modules"))
    assert result.returncode == 0, result.stderr[-3000:]
    shown = json.loads(result.stdout.splitlines()[-1])
    assert_close(shown["probabilities"], expected(folder, quantize=quantize))
    for answers in shown["answers"]:
        assert_same_answers(answers, UltraLightPredictor(folder, quantize=quantize).predict_batch(QUERIES, return_scores=True))


def test_the_root_files_stand_alone():
    for name in ("configuration_ultralight.py", "modeling_ultralight.py", "pipeline_ultralight.py", "ultra_light_predictor.py"):
        source = (ROOT / name).read_text(encoding="utf-8")
        assert "import ultralight" not in source
        assert "from ultralight" not in source
