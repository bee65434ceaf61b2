import pytest

from tests.conftest import ROOT
from ultralight.pretrain_settings import PretrainSettings
from ultralight.problems import InputError
from ultralight.settings import TrainSettings, assigned_flags, parse_settings


def parse(tmp_path, yaml="", *flags):
    path = tmp_path / "run.yaml"
    path.write_text(yaml or "{}", encoding="utf-8")
    return parse_settings([str(path), *flags], "no_default.yaml", TrainSettings)


def test_flags_override_the_file_and_the_file_the_defaults(tmp_path):
    settings = parse(tmp_path, "epochs: 7\nlearning_rate: 1e-4\nexport_onnx: true\nteacher: [a, b]\ndistillation: true\n", "--epochs", "9")
    assert (settings.epochs, settings.learning_rate, settings.batch_size) == (9, 1e-4, 32)
    assert settings.export_onnx is True
    assert settings.teacher == ["a", "b"]
    assert parse(tmp_path, "export_onnx: true", "--export_onnx", "false").export_onnx is False


def test_assignments_are_flags(tmp_path):
    settings = parse(tmp_path, "", *assigned_flags(["epochs=9", "distillation=true", "teacher=a,b"]))
    assert (settings.epochs, settings.distillation, settings.teacher) == (9, True, ["a", "b"])


def test_the_output_folder_is_named_after_the_dataset(tmp_path):
    assert parse(tmp_path, "dataset: some/rows.jsonl").output_dir == "outputs/rows"


@pytest.mark.parametrize(("rows", "epochs"), [(100, 60), (4800, 16), (12_000, 8), (29_000, 4), (96_000, 3)])
def test_few_queries_are_read_oftener(tmp_path, rows, epochs):
    assert parse(tmp_path).epochs_for(rows) == epochs
    assert parse(tmp_path, "epochs: 7").epochs_for(rows) == 7


def test_without_encoder_layers_many_queries_are_read_oftener(tmp_path):
    assert parse(tmp_path, "num_layers: 0").epochs_for(29_000) == 12


def test_steps_are_those_of_the_epochs_or_given(tmp_path):
    assert parse(tmp_path, "epochs: 3").steps_for(100) == 12  # the last of the four batches is not full
    assert parse(tmp_path, "steps: 50").steps_for(100) == 50
    assert parse(tmp_path, "streaming: true").epochs_for(1_000_000) == 1


@pytest.mark.parametrize(
    ("yaml", "rows", "patience"),
    [
        ("{}", 12_000, 6),
        ("{}", 100, 18),  # 60 short epochs: the network learns nothing in the first 15 of them
        ("steps: 200", 100, 15),  # 50 epochs
        ("{streaming: true, steps: 200}", 100, 6),
        ("early_stopping_patience: 0", 100, 0),
    ],
)
def test_patience_outlasts_the_slow_start_of_a_training_of_many_short_epochs(tmp_path, yaml, rows, patience):
    assert parse(tmp_path, yaml).patience_for(rows) == patience


@pytest.mark.parametrize(
    ("yaml", "expected"),
    [
        ("epoch: 3", "unknown setting 'epoch'; did you mean 'epochs'?"),
        ("epochs: 0", "--epochs 0: accepted: at least 1"),
        ("embedding_pruning: 30", "--embedding_pruning 30.0: accepted: 0 to 1"),
        ("linear_share: 1", "--linear_share 1.0: accepted: at least 0 and below 1"),
        ("num_layers: -1", "--num_layers -1: accepted: at least 0"),
        ("max_seq_length: 2", "accepted: at least 3"),
        ("teacher: [a]", "accepted: with --distillation"),
        ("transfer: [a.txt]", "accepted: with --distillation"),
        ("teacher_folds: 1", "--teacher_folds 1: accepted: at least 2"),
        ("quantize: true", "accepted: with --export_onnx"),
        ("push_to_hub: true", "accepted: with --hub_model_id someone/model"),
        ("hub_model_id: a/b/c", "--hub_model_id a/b/c: Repo id must be"),
        ("{epochs: 3, steps: 100}", "--epochs and --steps: both say when training ends; accepted: one of them"),
        ("{bf16: true, fp16: true}", "accepted: one of them"),
        ("{streaming: true, distillation: true}", "accepted: without --distillation"),
        ("{streaming: true, contradictions: first}", "accepted: without --streaming"),
        ("- epochs", "holds a list"),
        ("epochs: [", "not YAML"),
    ],
)
def test_wrong_settings_are_explained(tmp_path, yaml, expected):
    with pytest.raises(InputError) as error:
        parse(tmp_path, yaml)
    assert expected in str(error.value)


def test_an_unknown_flag_is_an_error(tmp_path, capsys):
    with pytest.raises(SystemExit):
        parse(tmp_path, "", "--epoch", "3", "--nonsense", "1")
    assert "unrecognized arguments" in capsys.readouterr().err


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_file_is_readable(path):
    kind = PretrainSettings if path.name.startswith("pretrain") else TrainSettings
    parse_settings([str(path)], "no_default.yaml", kind)
