import json
from dataclasses import asdict

import pytest

from formats.errors import WorkFailed, WrongUse
from training.config import LoopConfig, TrainingConfig, default, paper
from training.configured import configured
from training.methods import PRESETS, from_json, to_json


def test_the_paper_preset_is_the_public_command_with_early_stopping():
    """The first column of the hyper-parameter table in our notes on the paper."""
    config = paper()
    assert (config.dim, config.heads, config.layers) == (512, 1, 2)
    assert (config.dropout, config.attention_dropout) == (0.5, 0.5)
    assert config.max_history == 50
    assert config.batch_windows == 4 * 128  # 128 per GPU, four of them
    assert config.learning_rate == 1e-3
    assert (config.experts, config.single_experts) == (5, round(0.2 * 5))
    assert config.temperature == 1.0
    assert config.seed == 42
    assert not config.every_window  # the newest window of each user
    assert config.patience < config.epochs


def test_the_default_preset_is_the_plain_config():
    assert default() == TrainingConfig()
    assert configured(default(), None, []) == TrainingConfig()


@pytest.mark.parametrize("preset", sorted(name for name, make in PRESETS.items() if isinstance(make(), LoopConfig)))
def test_every_preset_that_is_trained_makes_a_network(preset):
    network = PRESETS[preset]().network((10, 20))
    assert network.items_per_domain == (10, 20)
    assert network.dim % network.heads == 0


def test_a_config_from_before_stop_gradient_was_an_option_is_read():
    content = to_json(paper())
    del content["stop_gradient"]
    assert from_json(content, "run.json") == paper()


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_a_config_survives_json(preset):
    config = PRESETS[preset]()
    assert from_json(json.loads(json.dumps(to_json(config))), "run.json") == config


def test_words_win_over_the_file_and_the_file_over_the_preset(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text("dim = 16\nepochs = 7\n")
    config = configured(paper(), file, ["epochs=9", "every_window=true", "dropout=0"])
    assert (config.dim, config.epochs, config.every_window, config.dropout) == (16, 9, True, 0.0)
    assert config.batch_windows == paper().batch_windows


@pytest.mark.parametrize(
    ("name", "text"),
    [("c.toml", "dim = 16\nlearning_rate = 1\n"), ("c.json", '{"dim": 16, "learning_rate": 1}')],
)
def test_toml_and_json_say_the_same(tmp_path, name, text):
    file = tmp_path / name
    file.write_text(text)
    config = configured(default(), file, [])
    assert (config.dim, config.learning_rate) == (16, 1.0)
    assert isinstance(config.learning_rate, float)


@pytest.mark.parametrize(
    ("key", "nearest"), [("learning_rat", "learning_rate"), ("expert", "experts"), ("max_histroy", "max_history")]
)
def test_an_unknown_key_names_the_nearest_one(tmp_path, key, nearest):
    with pytest.raises(WrongUse, match=f"unknown key '{key}'; did you mean {nearest}"):
        configured(default(), None, [f"{key}=1"])
    file = tmp_path / "c.json"
    file.write_text(json.dumps({key: 1}))
    with pytest.raises(WrongUse, match=f"c.json: unknown key '{key}'; did you mean {nearest}"):
        configured(default(), file, [])


def test_an_unknown_key_near_to_none_lists_all():
    with pytest.raises(WrongUse, match="known: validation_cases, seed, dim, heads, ") as caught:
        configured(default(), None, ["qqqqq=1"])
    assert all(name in str(caught.value) for name in asdict(default()))


@pytest.mark.parametrize(
    "word", ["dim=big", "dim=1.5", "dim=", "dropout=half", "every_window=perhaps", "every_window=1", "seed=4e2"]
)
def test_a_word_of_another_type_is_refused_by_name(word):
    with pytest.raises(WrongUse, match=f"--set: {word.split('=')[0]}: "):
        configured(default(), None, [word])


@pytest.mark.parametrize(
    ("key", "value"),
    [("dim", 16.0), ("dim", True), ("dim", None), ("dropout", True), ("every_window", 1), ("epochs", [3])],
)
def test_a_json_value_of_another_type_is_refused_by_name(key, value):
    with pytest.raises(WrongUse, match=f"^run.json: {key}: "):
        from_json({"method": "syncrec", key: value}, "run.json")


def test_a_word_without_a_value_is_refused():
    with pytest.raises(WrongUse, match="--set epochs: must be key=value"):
        configured(default(), None, ["epochs"])


@pytest.mark.parametrize(
    ("name", "text"), [("c.toml", "dim 16"), ("c.json", "{"), ("c.json", "[1]"), ("c.json", "3"), ("c.toml", "a = [1")]
)
def test_a_file_that_is_no_table_is_refused_by_name(tmp_path, name, text):
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(WorkFailed, match=name):
        configured(default(), file, [])


@pytest.mark.parametrize(
    "word",
    [
        "epochs=0",
        "patience=0",
        "batch_windows=0",
        "validation_cases=0",
        "learning_rate=0",
        "learning_rate=nan",
        "learning_rate=inf",
        "gap_momentum=1",
        "gap_momentum=-0.1",
        "temperature=0",
        "temperature=nan",
        "weight_floor=1.5",
        "mutual_information=-1",
        "mutual_information=nan",
    ],
)
def test_a_value_without_sense_is_refused_by_name(word):
    with pytest.raises(WrongUse, match=f"^{word.split('=')[0]}:"):
        configured(default(), None, [word])


@pytest.mark.parametrize(
    "word", ["heads=3", "single_experts=5", "single_experts=0", "dropout=1", "attention_dropout=-1"]
)
def test_sizes_that_contradict_each_other_are_refused_by_name(word):
    with pytest.raises(WrongUse, match=f"^{word.split('=')[0]}:"):
        configured(default(), None, [word]).network((3, 4))
