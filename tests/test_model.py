import pytest
import torch

from configuration_ultralight import UltraLightConfig
from modeling_ultralight import NgramEmbedding, UltraLightForImplicitLabelPrediction, UltraLightForMaskedLM, UltraLightModel
from tests.conftest import LABELS

SHAPE = {
    "vocab_size": 50, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32,
    "max_position_embeddings": 12, "projection_dim": 8,
}  # fmt: skip


def make(**changes):
    torch.manual_seed(0)
    model = UltraLightForImplicitLabelPrediction(UltraLightConfig(label_schema=LABELS, **{**SHAPE, **changes})).eval()
    with torch.no_grad():
        model.heads.weight.normal_(std=3)
    return model


def batch(rows=5, length=9):
    ids = torch.randint(5, 50, (rows, length), generator=torch.Generator().manual_seed(1))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def raw_scores(model, inputs):
    """What the heads say of the representation that all labels share, before probabilities are formed."""
    seen = []
    handle = model.dropout.register_forward_hook(lambda module, args, output: seen.append(output))
    model(**inputs)
    handle.remove()
    return model.heads(seen[0][:, 0])


@torch.inference_mode()
def test_logits_are_log_odds_within_each_label(schema):
    model, inputs = make(), batch()
    scores, logits = raw_scores(model, inputs).double(), model(**inputs).logits
    for _, columns in schema.slices():
        own, given = scores[:, columns], logits[:, columns]
        torch.testing.assert_close(given.sigmoid().double(), own.softmax(-1), atol=1e-6, rtol=0)
        for value in range(own.shape[1]):
            others = [column for column in range(own.shape[1]) if column != value]
            torch.testing.assert_close(given[:, value].double(), own[:, value] - own[:, others].logsumexp(-1), atol=1e-4, rtol=1e-5)


@torch.inference_mode()
def test_log_odds_of_a_sure_model_are_exact():
    model = make()
    with torch.no_grad():
        model.heads.weight.mul_(30)
    inputs = batch()
    scores, logits = raw_scores(model, inputs).double(), model(**inputs).logits.double()
    assert logits.abs().max() > 30
    torch.testing.assert_close(logits[:, 7], scores[:, 7] - scores[:, 8], atol=1e-3, rtol=1e-5)


@torch.inference_mode()
def test_a_label_attends_to_the_tokens_that_matter_to_it():
    model, inputs = make(label_attention=True), batch()
    attention = model.label_attention
    states, embedded = torch.randn(2, 4, 16), torch.randn(2, 4, 16)
    padding = torch.tensor([[0.0, 0, 0, 0], [0, 0, -1e4, -1e4]])
    seen = attention(states, embedded, padding)
    for row, tokens in ((0, 4), (1, 2)):
        for label in range(3):
            weights = (states[row, :tokens] @ attention.relevance.weight[label]).softmax(0)
            both = torch.cat([states, embedded], -1)[row, :tokens]
            torch.testing.assert_close(seen[row, label], attention.projection.weight @ (weights @ both))
    # Every head reads its own label's representation: what one label attends to does not touch the others.
    before = model(**inputs).logits
    attention.relevance.weight[1, 0] += 5
    changed = (model(**inputs).logits - before).abs().amax(0) > 1e-6
    assert changed.tolist() == [False] * 4 + [True] * 3 + [False] * 2


@pytest.mark.parametrize("sizes", [[2], [2, 3]])
@torch.inference_mode()
def test_an_ngram_is_found_at_the_one_of_its_rows_that_it_owns(sizes):
    model = make(ngram_rows=97, ngram_sizes=sizes, embedding_size=8)
    table = model.bert.embeddings.ngram_embeddings
    table.weight[1:].normal_()
    ids = batch(rows=2)["input_ids"]
    assert not table(ids).any(), "rows that nobody owns say nothing"
    padded = torch.nn.functional.pad(ids, (2, 0)).tolist()
    expected = torch.zeros(2, 9, 8)
    for number, (row, place, size) in enumerate((row, place, size) for row in range(2) for place in range(9) for size in sizes):
        gram = padded[row][place + 3 - size : place + 3][::-1]  # the last token first
        keys = [sum(f * token for f, token in zip(factors, gram, strict=False)) + size for factors in NgramEmbedding.FACTORS[:2]]
        key = keys[number % 2]
        if table.owners[key % 97] == -1 and key % 97:
            table.owners[key % 97] = key
            expected[row, place] += table.weight[key % 97]
    assert expected.any(-1).sum() > 10
    torch.testing.assert_close(table(ids), expected)
    own = model.bert.embeddings
    torch.testing.assert_close(own(ids), own(inputs_embeds=own.word_embeddings(ids) + expected))


@pytest.mark.parametrize("label_attention", [True, False])
@pytest.mark.parametrize("pooling", ["cls", "mean", "max", "cls+mean+max"])
@torch.inference_mode()
def test_padding_changes_nothing(pooling, label_attention):
    model, inputs = make(pooling=pooling, label_attention=label_attention, ngram_rows=11), batch(length=6)
    padded = {name: torch.nn.functional.pad(value, (0, 4)) for name, value in inputs.items()}
    torch.testing.assert_close(model(**padded).logits, model(**inputs).logits)
    torch.testing.assert_close(model(padded["input_ids"]).logits, model(**inputs).logits)


def test_the_loss_is_the_cross_entropy_per_label(schema):
    model, inputs = make(), batch()
    labels = torch.tensor([[0, 1, 1], [3, 2, 0], [1, 0, 0], [2, 2, 1], [-100, 0, -100]])
    scores = raw_scores(model, inputs)
    losses = [
        torch.nn.functional.cross_entropy(scores[:, columns], labels[:, number], reduction="sum")
        for number, (_, columns) in enumerate(schema.slices())
    ]
    torch.testing.assert_close(model(**inputs, labels=labels).loss, sum(losses) / 13)


def test_class_weights_scale_the_loss(schema):
    weights = [float(number) for number in range(1, 10)]
    labels = torch.tensor([[3, 0, 1]] * 5)
    inputs = batch()
    weighted = make(class_weights=weights)
    scores = raw_scores(weighted, inputs)
    parts = [scores[:, columns].log_softmax(-1) for _, columns in schema.slices()]
    expected = -(4 * parts[0][:, 3] + 5 * parts[1][:, 0] + 9 * parts[2][:, 1]).sum() / 15
    torch.testing.assert_close(weighted(**inputs, labels=labels).loss, expected)


def test_gradients_are_finite_also_where_a_label_is_certain():
    model, inputs = make(), batch()
    with torch.no_grad():
        model.heads.weight.mul_(100)
    outputs = model(**inputs, labels=torch.zeros(5, 3, dtype=torch.long))
    (outputs.loss + outputs.logits.sum()).backward()
    assert all(torch.isfinite(weights.grad).all() for weights in model.parameters() if weights.grad is not None)


def test_the_configuration_speaks_the_language_of_stock_pipelines():
    config = make().config
    assert config.id2label[1] == "饮料=茶"
    assert config.label2id["带走=是"] == 8
    assert config.num_labels == 9
    assert config.problem_type == "multi_label_classification"
    assert set(config.auto_map) == {"AutoConfig", "AutoModel", "AutoModelForMaskedLM", "AutoModelForSequenceClassification"}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"pooling": "mean+middle"}, "'middle' is not one of cls, mean, max"),
        ({"ngram_sizes": [2, 4]}, "accepted: of 2, 3"),
        ({"label_schema": {"a": ["none"]}}, "at least one label, each with the absent value and one more"),
        ({"label_schema": {}}, "at least one label"),
    ],
)
def test_a_wrong_configuration_is_explained(fields, expected):
    with pytest.raises(ValueError, match=expected):
        UltraLightConfig(**fields)


def test_a_classifier_without_labels_is_refused():
    with pytest.raises(ValueError, match="no label_schema"):
        UltraLightForImplicitLabelPrediction(UltraLightConfig(**SHAPE))


@torch.inference_mode()
def test_saving_and_loading_changes_nothing(tmp_path):
    model, inputs = make(), batch()
    model.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "config.json", "model.safetensors", "configuration_ultralight.py", "modeling_ultralight.py", "pipeline_ultralight.py",
    }  # fmt: skip
    loaded = UltraLightForImplicitLabelPrediction.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(loaded(**inputs).logits, model(**inputs).logits, rtol=0, atol=0)
    encoder = UltraLightModel.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(encoder(**inputs).last_hidden_state, model.bert(**inputs).last_hidden_state, rtol=0, atol=0)


def test_the_masked_language_model_scores_the_labelled_places_alone(tmp_path):
    model, inputs = UltraLightForMaskedLM(UltraLightConfig(**SHAPE)).eval(), batch()
    labels = torch.full_like(inputs["input_ids"], -100)
    labels[1, 3], labels[4, 0] = 7, 9
    every = model(**inputs).logits
    assert every.shape == (5, 9, 50)
    output = model(**inputs, labels=labels)
    torch.testing.assert_close(output.logits, torch.stack([every[1, 3], every[4, 0]]))
    torch.testing.assert_close(output.loss, torch.nn.functional.cross_entropy(output.logits, torch.tensor([7, 9])))
    model.save_pretrained(tmp_path)
    loaded = UltraLightForMaskedLM.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(loaded(**inputs).logits, every, rtol=0, atol=0)
