"""Settings are checked when they are made, flags fill them, published flags keep their meaning."""

import argparse
import json

import pytest

from model.moe.expert_sites import MLP
from model.moe.experts import ExpertConfig
from train.arguments import PRESETS, add_config_flags, train_config
from train.config import TrainConfig


def parse(*flags: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_config_flags(parser)
    return parser.parse_args(flags)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("learning_rate", -1.0),
        ("warmup_ratio", 1.5),
        ("lora_dropout", 1.0),
        ("label_smoothing", -0.1),
        ("schedule", "wavy"),
        ("precision", "int3"),
    ],
)
def test_a_bad_value_is_named(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        TrainConfig(**{field: value})  # type: ignore[arg-type]


def test_dropout_needs_a_low_rank_path() -> None:
    with pytest.raises(ValueError, match="lora_dropout: got 0.1 with mlp experts"):
        TrainConfig(lora_dropout=0.1, expert=ExpertConfig(kind="mlp"))


def test_flags_change_the_preset_and_nothing_else() -> None:
    config = train_config(parse("--num_train_epochs", "3", "--expert_rank", "4"), "tiny")
    assert (config.epochs, config.expert.rank) == (3, 4)
    assert config.learning_rate == PRESETS["tiny"].learning_rate


def test_the_published_line_asks_for_full_mlp_experts() -> None:
    config = train_config(parse("--llm_lora_enable", "False"), "published")
    assert (config.expert.kind, config.learning_rate) == ("mlp", 4e-5)
    with pytest.raises(ValueError, match="contradicts"):
        train_config(parse("--llm_lora_enable", "False", "--expert_kind", "lora"), "published")


def test_full_experts_copy_mlps_unless_told_otherwise() -> None:
    full = train_config(parse("--expert_kind", "mlp"), "tiny").expert
    assert full.projections == MLP != PRESETS["tiny"].expert.projections
    told = train_config(parse("--expert_kind", "mlp", "--expert_projections", "o_proj"), "tiny").expert
    assert told.projections == ("o_proj",)


def test_a_flag_without_effect_is_accepted_only_with_its_value() -> None:
    train_config(
        parse("--version", "v1", "--freeze_backbone", "True", "--lazy_preprocess", "True"), "published"
    )
    with pytest.raises(ValueError, match="freeze_backbone"):
        train_config(parse("--freeze_backbone", "False"), "published")


def test_identity_is_plain_json() -> None:
    identity = TrainConfig(expert=ExpertConfig(layers=(0, 2))).identity()
    assert json.loads(json.dumps(identity))["expert"]["layers"] == [0, 2]


def test_expert_layers_flag() -> None:
    assert train_config(parse("--expert_layers", "1,3"), "tiny").expert.layers == (1, 3)
    with pytest.raises(ValueError, match="expert_layers"):
        train_config(parse("--expert_layers", "odd"), "tiny")
