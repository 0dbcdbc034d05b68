"""Where the encoder's ImageNet weights come from, without a network."""

from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file

from train.mtl.pretrained import imagenet_weights

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
    found = imagenet_weights(str(path))
    assert found is not None and torch.equal(found["conv1.weight"], WEIGHTS["conv1.weight"])
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ValueError, match=name):
        imagenet_weights(str(path))
    with pytest.raises(ValueError, match="none.pth: no such file"):
        imagenet_weights(str(tmp_path / "none.pth"))


def test_none_and_what_the_hub_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    hub(monkeypatch, WEIGHTS)
    assert imagenet_weights("none") is None
    assert imagenet_weights("imagenet") == WEIGHTS


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
    assert imagenet_weights("imagenet") is None
    assert str(error) in caplog.text and "random weights" in caplog.text and "--pretrained" in caplog.text
