"""Where the encoders' weights come from, without a network."""

from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file

from model.mtl.encoders import PlainEncoder
from train.mtl.pretrained import encoder_weights

WEIGHTS = {"conv1.weight": torch.arange(6.0).view(2, 3)}


def hub(monkeypatch: pytest.MonkeyPatch, outcome: Any) -> None:
    """Torch hub gives this, or fails so."""

    def load(url: str, **settings: Any) -> Any:
        assert settings["check_hash"]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", load)


@pytest.mark.parametrize("name", ["resnet.pth", "resnet.safetensors"])
def test_a_local_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub(monkeypatch, AssertionError("asked for"))
    path = tmp_path / name
    save_file(WEIGHTS, path) if path.suffix == ".safetensors" else torch.save(WEIGHTS, path)
    found = encoder_weights(str(path), "resnet50")
    assert found is not None and torch.equal(found["conv1.weight"], WEIGHTS["conv1.weight"])
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ValueError, match=name):
        encoder_weights(str(path), "resnet50")
    with pytest.raises(ValueError, match="none.pth: no such file"):
        encoder_weights(str(tmp_path / "none.pth"), "resnet50")


def test_none_and_what_the_hub_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    hub(monkeypatch, WEIGHTS)
    assert encoder_weights("none", "resnet50") is None
    assert encoder_weights("imagenet", "plain") is None
    assert encoder_weights("imagenet", "resnet50") == WEIGHTS


@pytest.mark.parametrize(
    "error",
    [
        URLError("no network"),
        ConnectionResetError("cut off"),
        RuntimeError('invalid hash value (expected "0676ba61", got "00000000")'),
        UnpicklingError("invalid load key"),
        EOFError("ran out of input"),
    ],
)
def test_without_a_sound_download_it_warns(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hub(monkeypatch, error)
    assert encoder_weights("imagenet", "resnet50") is None
    assert str(error) in caplog.text and "random weights" in caplog.text and "--pretrained" in caplog.text


def test_an_encoder_of_an_earlier_run(tmp_path: Path) -> None:
    path = tmp_path / "best.pt"
    one = PlainEncoder((2, 3, 4, 4))
    weights = {f"encoder.{name}": value for name, value in one.state_dict().items()}
    torch.save(
        {"config": {"arch": "HPS"}, "entry": {}, "model": {**weights, "decoders.x": torch.ones(1)}}, path
    )
    found = encoder_weights(str(path), "plain")
    of_folder = encoder_weights(str(tmp_path), "plain")
    assert found is not None and of_folder is not None and found.keys() == of_folder.keys()
    other = PlainEncoder((2, 3, 4, 4), found)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    with pytest.raises(
        ValueError, match=r"plain encoder: missing .*not fitting .*conv1.weight.*same --width"
    ):
        PlainEncoder((4, 4, 8, 16), {**found, "layer5.weight": torch.ones(1)} | {"bn1.bias": torch.ones(9)})
    torch.save(
        {"config": {"arch": "CGC"}, "entry": {}, "model": {"experts.0.conv1.weight": torch.ones(1)}}, path
    )
    with pytest.raises(
        ValueError, match=r"best.pt: a run of CGC, which has no single encoder; expected .*HPS"
    ):
        encoder_weights(str(path), "plain")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"config": {}, "model": [1]}, "config is dict, model list, expected two dictionaries"),
        ({"config": 3, "model": {}}, "config is int, model dict, expected two dictionaries"),
        ({"config": {}, "model": {"encoder.conv1.weight": 3}}, "'encoder.conv1.weight' is int, expected ten"),
        ({"config": {}, "model": {1: torch.ones(1)}}, "1 is Tensor, expected tensors by name"),
        ({1: torch.ones(1)}, "1 is Tensor, expected tensors by name"),
        ({"config": {}, "model": {}}, "a run of None, which has no single encoder"),
        ({"conv1.weight": 3}, "expected a dict of tensors"),
    ],
)
def test_files_of_others_are_refused_by_name(content: Any, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=f"other.pt: {message}"):
        encoder_weights(str(tmp_path / "other.pt"), "plain")
    with pytest.raises(ValueError, match="best.pt: no such file"):
        encoder_weights(str(tmp_path), "plain")
