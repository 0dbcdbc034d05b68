"""BEATs: position buckets, masks, gradients, files."""

import os
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from model.encoders.beats import BEATs, BEATsConfig, PositionalConv, group_mask, load_beats, save_beats
from model.encoders.beats_layers import relative_buckets

SMALL = {
    "encoder_layers": 2,
    "encoder_embed_dim": 32,
    "encoder_ffn_embed_dim": 48,
    "encoder_attention_heads": 4,
    "embed_dim": 16,
    "conv_pos": 8,
    "conv_pos_groups": 4,
    "num_buckets": 16,
    "max_distance": 20,
}


def small_beats(**changes: object) -> BEATs:
    torch.manual_seed(0)
    beats = BEATs(BEATsConfig.from_dict({**SMALL, **changes}))
    for parameter in beats.parameters():  # no zero biases: a mistake in their use must show
        nn.init.normal_(parameter, std=0.2)
    return beats


@pytest.fixture(scope="module")
def fbank() -> Tensor:
    return torch.randn(2, 64, 32, generator=torch.Generator().manual_seed(1))  # 4 x 2 patches


def test_buckets_are_exact_when_near_and_logarithmic_when_far() -> None:
    buckets = relative_buckets(60, num_buckets=16, max_distance=20)
    # 8 buckets per direction, 4 of them exact; keys after the query are in the upper half
    assert buckets[0, :5].tolist() == [0, 9, 10, 11, 12]
    assert buckets[:5, 0].tolist() == [0, 1, 2, 3, 4]
    # 4 + floor(4 * log(d / 4) / log(20 / 4)): d = 7 -> 5, 10 -> 6, 19 -> 7, then saturated
    assert buckets[[7, 10, 19, 20, 59], 0].tolist() == [5, 6, 7, 7, 7]
    assert buckets[0, 59] == 8 + 7


def test_positional_convolution_is_torchs_weight_norm() -> None:
    torch.manual_seed(0)
    ours = PositionalConv(8, 6, 2)
    conv = nn.Conv1d(8, 8, 6, padding=3, groups=2)
    conv = nn.utils.parametrizations.weight_norm(conv, dim=2)
    with torch.no_grad():
        ours.weight_g.uniform_(0.5, 2.0)
        conv.parametrizations.weight.original0.copy_(ours.weight_g)
        conv.parametrizations.weight.original1.copy_(ours.weight_v)
        ours.bias.copy_(torch.randn(8))
        conv.bias.copy_(ours.bias)  # type: ignore[union-attr]
        x = torch.randn(2, 11, 8)
        expected = nn.functional.gelu(conv(x.transpose(1, 2))[..., :11]).transpose(1, 2)
        torch.testing.assert_close(ours(x), expected)


@torch.no_grad()
def test_padding_frames_do_not_reach_other_tokens(fbank: Tensor) -> None:
    beats = small_beats()
    padding = torch.zeros(2, 64, dtype=torch.bool)
    padding[0, 32:] = True  # time patches 2 and 3, tokens 4 to 7
    changed = fbank.clone()
    changed[0, 32:] += 5.0
    before, after = beats(fbank, padding), beats(changed, padding)
    torch.testing.assert_close(before[0, :4], after[0, :4])
    torch.testing.assert_close(before[1], after[1])
    unmasked = (beats(fbank)[0, :4] - beats(changed)[0, :4]).abs().max()
    assert unmasked > 1e-3, "without a mask the change must show"


@torch.no_grad()
def test_rows_do_not_depend_on_their_batch(fbank: Tensor) -> None:
    beats = small_beats()
    padding = torch.zeros(2, 64, dtype=torch.bool)
    padding[0, 48:] = True
    together = beats(fbank, padding)
    for row in range(2):
        alone = beats(fbank[row : row + 1], padding[row : row + 1])[0]
        torch.testing.assert_close(together[row], alone, atol=1e-5, rtol=1e-5)


def test_training_and_inference_attention_agree(fbank: Tensor) -> None:
    beats = small_beats()
    padding = torch.arange(64).expand(2, 64) >= 48
    trained = beats(fbank, padding)
    with torch.no_grad():
        torch.testing.assert_close(trained, beats(fbank, padding), atol=1e-5, rtol=1e-5)
    trained.square().sum().backward()
    silent = [n for n, p in beats.named_parameters() if p.grad is None or not p.grad.any()]
    # a constant added to all keys does not change a softmax
    assert [n for n in silent if "k_proj.bias" not in n] == []


@pytest.mark.parametrize(
    "changes",
    [
        {"layer_norm_first": True, "deep_norm": False},
        {"relative_position_embedding": False, "gru_rel_pos": False},
        {"gru_rel_pos": False},
        {"embed_dim": 32},
        {"activation_fn": "relu"},
        {"conv_bias": True},
    ],
)
def test_variants_round_trip_through_files(tmp_path: Path, fbank: Tensor, changes: dict[str, object]) -> None:
    beats = small_beats(**changes)
    save_beats(tmp_path / "beats.pt", beats)
    stored = torch.load(tmp_path / "beats.pt", weights_only=True)
    assert set(stored) == {"cfg", "model"}
    with torch.no_grad():
        reference, plain = beats(fbank), small_beats()(fbank)
        torch.testing.assert_close(load_beats(tmp_path / "beats.pt")(fbank), reference, rtol=0, atol=0)
    assert not torch.allclose(reference, plain), "the variant must differ from the default"


def test_half_precision_file_loads_frozen_in_float32(tmp_path: Path) -> None:
    beats = small_beats()
    save_beats(tmp_path / "beats.pt", beats, torch.float16)
    loaded = load_beats(tmp_path / "beats.pt")
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert not any(p.requires_grad for p in loaded.parameters())
    assert not loaded.training
    for name, parameter in loaded.named_parameters():
        assert torch.equal(parameter, beats.get_parameter(name).half().float())


TRAINING_ENTRIES = {  # what the cfg of Microsoft's files holds besides the architecture
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "encoder_layerdrop": 0.05,
    "dropout_input": 0.0,
    "layer_wise_gradient_decay_ratio": 0.6,
    "predictor_dropout": 0.0,
    "predictor_class": 527,
}


@torch.no_grad()
@pytest.mark.parametrize("tuned", [False, True], ids=["pre-trained", "fine-tuned"])
@pytest.mark.parametrize("iteration", [{"deep_norm": False, "gru_rel_pos": True}, {"deep_norm": True}])
def test_microsofts_files(
    tmp_path: Path, fbank: Tensor, caplog: pytest.LogCaptureFixture, iteration: dict[str, bool], tuned: bool
) -> None:
    """All iterations have the same tensors; a fine-tuned file adds a classifier and its labels."""
    beats = small_beats(**iteration)
    save_beats(tmp_path / "beats.pt", beats)
    stored = torch.load(tmp_path / "beats.pt", weights_only=True)
    del stored["cfg"]["finetuned_model"]
    stored["cfg"] |= TRAINING_ENTRIES | {"finetuned_model": tuned}
    stored["model"]["predictor.weight"] = torch.zeros(527, 32)
    stored["model"]["predictor.bias"] = torch.zeros(527)
    stored["label_dict"] = {0: "/m/09x0r"}
    torch.save(stored, tmp_path / "beats.pt")
    if not tuned:
        with pytest.raises(ValueError, match=r"(?s)beats\.pt.*predictor"):
            load_beats(tmp_path / "beats.pt")
        return
    with caplog.at_level("INFO"):
        loaded = load_beats(tmp_path / "beats.pt")
    assert "classifier predictor.weight is not used" in caplog.text and "predictor.bias" in caplog.text
    torch.testing.assert_close(loaded(fbank), beats(fbank), rtol=0, atol=0)


class Payload:
    """Pickles to a call; loading it would run the call."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("must_not_exist",)


def test_unusable_files_are_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_beats("good.pt", small_beats())
    content = Path("good.pt").read_bytes()
    Path("cut.pt").write_bytes(content[: len(content) // 2])
    Path("empty.pt").write_bytes(b"")
    torch.save({"cfg": dict(SMALL), "model": {"x": Payload()}}, "code.pt")
    torch.save({"model": {}}, "layout.pt")
    torch.save({"cfg": {"embed_dim": 3}, "model": {}}, "sizes.pt")
    torch.save({"cfg": {**SMALL, "embed_dim": 8}, "model": small_beats().state_dict()}, "widths.pt")
    reasons = {
        "absent": "no such file",
        "cut": "truncated",
        "empty": "truncated",
        "code": "carrying code",
        "layout": "'cfg' and 'model'",
        "sizes": "encoder_layers",
        "widths": "do not fit",
    }
    for name, reason in reasons.items():
        with pytest.raises(ValueError, match=rf"(?s){name}\.pt.*{reason}"):
            load_beats(f"{name}.pt")
    assert not Path("must_not_exist").exists()


@pytest.mark.parametrize(
    "wrong",
    [
        {"encoder_attention_heads": 5},
        {"conv_pos_groups": 5},
        {"activation_fn": "tanh"},
        {"layer_norm_first": True},
    ],
)
def test_impossible_configurations_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        BEATsConfig.from_dict({**SMALL, **wrong})


def test_group_mask_drops_the_remainder_and_masks_whole_runs() -> None:
    mask = torch.tensor([0, 0, 0, 1, 1, 1, 1]).bool()
    assert group_mask(mask, 3).tolist() == [False, False, True]  # runs 00, 01, 11; the last entry is dropped
    with pytest.raises(ValueError, match="7 entries to 8"):
        group_mask(mask, 8)
