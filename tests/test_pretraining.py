import json
from collections import Counter

import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from configuration_ultralight import UltraLightConfig
from modeling_ultralight import UltraLightModel
from tests.conftest import ROOT, SHARED, SMALL_MODEL, order_rows, run_script, write_jsonl
from ultralight.corpus import corpus_files, held_out_lines, is_held_out, iter_lines, parse_weights, training_lines
from ultralight.experiment import run
from ultralight.masking import SpanMasking
from ultralight.pretrain_settings import PretrainSettings
from ultralight.pretraining import run_pretraining
from ultralight.problems import InputError
from ultralight.settings import TrainSettings
from ultralight.text import ForbiddenTexts
from ultralight.vocabulary import build_tokenizer

LINES = [
    f"{number}号店今天的{drink}很好喝，{mood}再来一杯" for number in range(400) for drink, mood in (("红茶", "明天"), ("咖啡", "下次"))
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "shops.txt").write_text("\n".join(LINES), encoding="utf-8")
    (folder / "other.txt").write_text("\n".join(f"无关的第{number}句" for number in range(50)), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(LINES, 24)


def test_masks_are_spans_of_the_asked_share(tokenizer):
    collate = SpanMasking(tokenizer, share=0.15, seed=0)
    rows = [{"input_ids": ids} for ids in tokenizer(LINES)["input_ids"]]
    batch = collate(rows)
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(row["input_ids"]) for row in rows], batch_first=True)
    chosen = batch["labels"] != -100
    assert torch.equal(batch["labels"][chosen], ids[chosen])
    assert torch.equal(batch["attention_mask"], (ids != tokenizer.pad_token_id).long())
    special = torch.isin(ids, torch.tensor(tokenizer.all_special_ids))
    assert not (chosen & special).any()
    assert chosen.sum() / (~special).sum() == pytest.approx(0.15, abs=0.02)
    changed = batch["input_ids"] != ids
    assert not (changed & ~chosen).any()
    assert (batch["input_ids"][chosen] == tokenizer.mask_token_id).float().mean() == pytest.approx(0.8, abs=0.03)
    # Spans: the neighbour of a masked token is masked more often than any token is.
    assert (chosen[:, 1:] & chosen[:, :-1]).sum() / chosen.sum() > 0.3
    assert not torch.equal(collate(rows)["labels"], batch["labels"])


def test_a_batch_always_has_something_to_predict(tokenizer):
    collate = SpanMasking(tokenizer, share=0.01, seed=0)
    for _ in range(20):
        assert (collate([{"input_ids": [2, 99, 3]}])["labels"] == 99).sum() == 1


def test_training_lines_leave_out_what_is_held_out_or_forbidden(corpus, tokenizer):
    files = corpus_files([str(corpus)])
    forbidden = LINES[0].replace("，", " ！")
    rows = training_lines(files, parse_weights(["other=0"], files), ForbiddenTexts([forbidden]), tokenizer)
    seen = Counter(tuple(ids) for ids in rows["input_ids"])
    wanted = [line for line in LINES if not is_held_out(line) and LINES[0] not in line]  # 10号店 … holds 0号店 … whole
    assert len(wanted) < len(LINES) - 1
    assert seen == Counter(tuple(tokenizer(line, truncation=True)["input_ids"]) for line in wanted)
    assert rows["length"][:] == [len(ids) for ids in rows["input_ids"]]


def test_lines_carry_the_weight_of_their_file(corpus, tokenizer):
    files = corpus_files([str(corpus)])
    rows = training_lines(files, parse_weights(["other=3", "shops=0.5"], files), ForbiddenTexts([]), tokenizer)
    assert Counter(rows["weight"]) == {
        3.0: sum(not is_held_out(line) for line in iter_lines(corpus / "other.txt")),
        0.5: sum(not is_held_out(line) for line in LINES),
    }


def test_held_out_lines_are_the_ones_that_training_skips(corpus):
    lines = held_out_lines(corpus_files([str(corpus / "shops.txt")]), ForbiddenTexts([]), 100)
    assert lines
    assert all(is_held_out(line) for line in lines)


def test_queries_of_a_dataset_are_text_too(tmp_path):
    path = write_jsonl(tmp_path / "train.jsonl", order_rows())
    assert list(iter_lines(path)) == [row["query"] for row in order_rows()]


@pytest.mark.parametrize("weights", [["shops"], ["shops=x"], ["shop=2"], ["shops=-1"]])
def test_wrong_weights_are_explained(corpus, weights):
    with pytest.raises(InputError, match="accepted: NAME=NUMBER, NAME one of other, shops"):
        parse_weights(weights, corpus_files([str(corpus)]))


def test_settings_out_of_range_are_listed_together():
    wrong = {"ngram_rows": -1, "max_seq_length": 2, "learning_rate": 0.0, "mask_share": 1.0}
    with pytest.raises(InputError) as error:
        PretrainSettings(corpus=["texts"], **wrong)
    assert all(f"--{name} {value}" in str(error.value) for name, value in wrong.items())


def test_a_missing_corpus_is_explained(tmp_path):
    with pytest.raises(InputError, match=r"accepted: a \.txt file"):
        corpus_files([str(tmp_path)])


def test_the_script_writes_an_encoder_that_training_starts_from(corpus, orders, tmp_path):
    folder = tmp_path / "base"
    flags = ["--max_seq_length", 24, "--vocab_size", 500, "--hidden_dim", 32, "--steps", 60, "--batch_size", 16, "--learning_rate", 3e-3]
    flags += ["--embedding_dim", 16, "--ngram_rows", 101]
    result = run_script("pretrain.py", "--corpus", corpus, "--output_dir", folder, "--bf16", "true", *flags)
    assert result.returncode == 0, result.stderr[-2000:]
    report = json.loads((folder / "pretraining.json").read_text(encoding="utf-8"))
    losses = [entry["eval_loss"] for entry in report["curve"] if "eval_loss" in entry]
    assert losses[-1] < losses[0] - 0.5
    assert report["lines_read"] == 60 * 16
    assert not (folder / "checkpoints").exists()
    encoder = AutoModel.from_pretrained(folder, trust_remote_code=True)
    assert (folder / "pretraining.png").stat().st_size > 1000
    assert encoder.config.vocab_size == len(AutoTokenizer.from_pretrained(folder)) == 500
    assert (encoder.embeddings.ngram_embeddings.owners != -1).sum() > 90, "the most frequent pairs have a row each"
    small = {
        name: SMALL_MODEL[name] for name in ("max_seq_length", "projection_dim", "batch_size", "learning_rate", "early_stopping_patience")
    }
    metrics = run(TrainSettings(dataset=str(orders), output_dir=str(tmp_path / "tuned"), model_name=str(folder), epochs=40, **small))
    assert metrics["test"]["micro_f1"] > 0.5


@pytest.fixture
def small_encoder(tokenizer, tmp_path):
    """An encoder that was never trained, saved as pre-training would."""
    config = UltraLightConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_attention_heads=2, num_hidden_layers=1, intermediate_size=64,
        max_seq_length=24, max_position_embeddings=24, training_facts={"steps": 7},
    )  # fmt: skip
    UltraLightModel(config).save_pretrained(tmp_path / "encoder")
    tokenizer.save_pretrained(tmp_path / "encoder")
    return tmp_path / "encoder"


def test_pretraining_goes_on_from_an_encoder(corpus, small_encoder, tmp_path):
    settings = PretrainSettings(
        corpus=[str(corpus)], model_name=str(small_encoder), output_dir=str(tmp_path / "more"), steps=1, batch_size=4
    )
    settings.learning_rate = 1e-9  # as good as none: what comes out is what went in
    report = run_pretraining(settings)
    assert report["before"] == {"steps": 7}
    before, after = (UltraLightModel.from_pretrained(folder) for folder in (small_encoder, tmp_path / "more"))
    for name, weights in before.state_dict().items():
        assert torch.allclose(weights, after.state_dict()[name], atol=1e-6), name
    vocabularies = [AutoTokenizer.from_pretrained(folder).get_vocab() for folder in (small_encoder, tmp_path / "more")]
    assert vocabularies[0] == vocabularies[1]


def test_an_encoder_to_go_on_from_decides_the_shape(corpus, small_encoder):
    settings = PretrainSettings(corpus=[str(corpus)], model_name=str(small_encoder), num_heads=4, hidden_dim=32)
    with pytest.raises(InputError, match=r"--num_heads 4.* has 2; leave it out"):
        run_pretraining(settings)


def test_forbidden_texts_are_found_whole_or_quoted():
    forbidden = ForbiddenTexts(["这车的后备箱，能不能放下两个婴儿车呢？", "省油", "……"])
    lines = ["省油！", "省油的车", "他问：这车的后备箱能不能放下两个婴儿车呢", "后备箱能放婴儿车", "！"]
    assert [forbidden.equal(line) for line in lines] == [True, False, False, False, False]
    assert [forbidden.held_by(line) for line in lines] == [True, False, True, False, False]


@pytest.mark.slow
def test_pretraining_reads_nothing_that_is_measured():
    """Neither the project's test file nor any other that it is measured on; their texts and the corpus are not part of the project."""
    if not SHARED.is_dir():
        pytest.skip("the corpus is not here")
    measured = [
        ROOT / "data" / "car_queries" / "test.jsonl",
        *sorted(SHARED.glob("data/*/test.jsonl")),
        SHARED / "data/bdci_car/train.jsonl",
    ]
    result = run_script("-m", "benchmarks.leakage", "--measured", *measured)
    assert result.returncode == 0, result.stdout + result.stderr[-2000:]
    assert "car_forum.txt" in result.stdout
