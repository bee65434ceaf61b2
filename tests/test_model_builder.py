import pytest
import torch
from transformers import BertConfig, BertModel, DistilBertConfig, DistilBertModel

from tests.conftest import order_rows
from tests.test_vocabulary import bert_tokenizer
from ultralight.evidence import gather_evidence
from ultralight.model_builder import from_checkpoint, from_scratch, make_model
from ultralight.ngrams import select_ngrams
from ultralight.problems import InputError
from ultralight.settings import TrainSettings
from ultralight.vocabulary import common_chinese_characters

TEXTS = [row["query"] for row in order_rows()]
ROWS = {"query": TEXTS, "labels": [[0, 0, 0]] * len(TEXTS)}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A three-layer BERT with a vocabulary of which most is never used."""
    folder = tmp_path_factory.mktemp("checkpoint")
    tokenizer = bert_tokenizer(
        [*common_chinese_characters()[:1500], *"来杯加冰镇烫热点打包abcdefghijklmnopqrstuvwxyz0123456789", "ess", "pre"]
    )
    torch.manual_seed(0)
    BertModel(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=24,
            num_hidden_layers=3,
            num_attention_heads=3,
            intermediate_size=48,
            max_position_embeddings=40,
        )
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder, tokenizer


@torch.inference_mode()
def test_the_first_layers_of_a_checkpoint_are_taken_over(checkpoint, schema):
    folder, tokenizer = checkpoint
    model, pruned = from_checkpoint(str(folder), TEXTS, schema, max_seq_length=20, num_hidden_layers=2)
    assert model.config.hidden_size == 24
    assert model.config.num_attention_heads == 3
    assert model.config.vocab_size == len(pruned) < len(tokenizer)
    bert = BertModel.from_pretrained(folder, num_hidden_layers=2, add_pooling_layer=False).eval()
    for text in TEXTS[:20]:
        start, end = tokenizer.cls_token_id, tokenizer.sep_token_id
        ids = [start, *tokenizer.encode(text, add_special_tokens=False), end]
        expected = bert(input_ids=torch.tensor([ids])).last_hidden_state
        actual = model.bert.eval()(**pruned(text, return_tensors="pt")).last_hidden_state
        torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize(
    ("name", "activation", "expected"), [("base", None, "relu"), ("scratch", "gelu", "gelu"), (None, None, "gelu"), (None, "relu", "relu")]
)
def test_a_foreign_checkpoint_keeps_its_activation(checkpoint, schema, name, activation, expected):
    settings = TrainSettings(model_name=name or str(checkpoint[0]), activation=activation, max_seq_length=20, num_layers=1)
    assert make_model(settings, ROWS, schema)[0].config.hidden_act == expected


def test_of_a_general_encoders_ngrams_a_task_has_the_telling_ones(schema):
    model, _ = make_model(TrainSettings(max_seq_length=20), ROWS, schema)
    assert model.config.ngram_rows == 3821
    assert (model.bert.embeddings.ngram_embeddings.owners != -1).sum() < 200, "those that two queries hold"


@torch.inference_mode()
def test_an_ultralight_encoder_is_a_checkpoint_too(schema, tmp_path):
    shape = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32, "num_hidden_layers": 2}
    first, tokenizer = from_scratch(TEXTS, schema, 12, embedding_size=8, **shape)
    first.bert.save_pretrained(tmp_path / "base_encoder")
    tokenizer.save_pretrained(tmp_path / "base_encoder")
    second, larger = from_checkpoint(
        str(tmp_path / "base_encoder"), ["犇犇犇来一杯", *TEXTS], schema, max_seq_length=16, num_hidden_layers=1
    )
    assert second.config.num_hidden_layers == 1
    ids = larger(TEXTS[0], return_tensors="pt")["input_ids"]
    assert ids.tolist() == [tokenizer(TEXTS[0])["input_ids"]]
    torch.testing.assert_close(second.bert.embeddings.eval()(ids), first.bert.embeddings.eval()(ids))
    assert larger.tokenize("犇") == ["犇"], "a character that the training queries repeat is added"
    assert second.config.vocab_size == len(larger) == len(tokenizer) + 1
    places = second.bert.embeddings.position_embeddings.weight
    torch.testing.assert_close(places[11:], places[11].expand(5, -1)), "places beyond the checkpoint's begin like its last"


@torch.inference_mode()
def test_chosen_ngrams_are_taken_over(schema, tmp_path):
    first, tokenizer = from_scratch(TEXTS, schema, 12, embedding_size=8, hidden_size=16, num_attention_heads=2)
    select_ngrams(first, gather_evidence(tokenizer, ROWS, schema), 23)
    assert first.bert.embeddings.ngram_embeddings.weight.any()
    first.bert.save_pretrained(tmp_path / "fitted_encoder")
    tokenizer.save_pretrained(tmp_path / "fitted_encoder")
    second, _ = from_checkpoint(str(tmp_path / "fitted_encoder"), TEXTS, schema, 12, 2)
    ids = torch.tensor([tokenizer(TEXTS[0])["input_ids"]])
    torch.testing.assert_close(second.bert.embeddings.eval()(ids), first.bert.embeddings.eval()(ids))


@torch.inference_mode()
def test_narrower_embeddings_are_the_nearest_ones(schema, tmp_path):
    first, tokenizer = from_scratch(TEXTS, schema, 12, embedding_size=8, hidden_size=16, num_attention_heads=2)
    select_ngrams(first, gather_evidence(tokenizer, ROWS, schema), 23)
    own = first.bert.embeddings
    for table in (own.word_embeddings, own.ngram_embeddings):
        table.weight[:, 3:] = 0  # rank 3: three columns hold it all
    own.widening.weight.normal_()
    first.bert.save_pretrained(tmp_path / "wide_encoder")
    tokenizer.save_pretrained(tmp_path / "wide_encoder")
    ids = torch.arange(5, 15).unsqueeze(0)
    differences = []
    for width in (4, 3, 2):
        second, _ = from_checkpoint(str(tmp_path / "wide_encoder"), TEXTS, schema, 12, 2, embedding_size=width)
        assert second.bert.embeddings.word_embeddings.weight.shape[1] == width
        differences.append(float((second.bert.embeddings.eval()(ids) - own.eval()(ids)).abs().max()))
    assert differences[0] < 1e-4
    assert differences[1] < 1e-4
    assert differences[2] > 1e-2


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"embedding_size": 32}, "--embedding_dim 32: .* has 24; accepted: at most that"),
        ({"num_hidden_layers": 4}, "--num_layers 4: .* has 3"),
        ({"max_seq_length": 41}, "--max_seq_length 41: .* reads at most 40 tokens"),
        ({"hidden_size": 128}, "--hidden_dim 128: .* has 24"),
    ],
)
def test_what_a_checkpoint_cannot_give_is_explained(checkpoint, schema, changes, expected):
    arguments = {"max_seq_length": 20, "num_hidden_layers": 2, **changes}
    with pytest.raises(InputError, match=expected):
        from_checkpoint(str(checkpoint[0]), TEXTS, schema, **arguments)


def test_other_checkpoints_are_refused(schema, tmp_path):
    DistilBertModel(DistilBertConfig(vocab_size=9, dim=8, n_layers=1, n_heads=1, hidden_dim=8)).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="a distilbert model; accepted: bert or ultralight"):
        from_checkpoint(str(tmp_path), TEXTS, schema, 20, 2)
    with pytest.raises(InputError, match="no checkpoint can be read from there"):
        from_checkpoint(str(tmp_path / "nothing"), TEXTS, schema, 20, 2)
