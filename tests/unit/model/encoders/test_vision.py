"""Image preprocessing and vision towers from transformers and open_clip."""

import json
import shutil
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from open_clip.pretrained import _PRETRAINED
from PIL import Image
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    CLIPVisionModel,
    SiglipConfig,
    SiglipModel,
    SiglipTextConfig,
    SiglipVisionConfig,
    SiglipVisionModel,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from model.encoders.images import ImageSpec, pixels
from model.encoders.vision import VisionTower
from tests.flipping import as_torch, flip_exponent

PREPROCESSOR = {
    "crop_size": {"height": 32, "width": 32},
    "do_center_crop": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "size": {"shortest_edge": 32},
}
SIGLIP_PREPROCESSOR = {
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
    "resample": 2,
    "size": {"height": 32, "width": 32},
}
VISION = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 4, "num_attention_heads": 2}
VISION |= {"image_size": 32, "patch_size": 8}


def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    values = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


@pytest.fixture(scope="module")
def reference() -> CLIPVisionModel:
    torch.manual_seed(0)
    return CLIPVisionModel(CLIPVisionConfig(**VISION)).eval()


@pytest.fixture
def folder(tmp_path: Path, reference: CLIPVisionModel) -> Path:
    reference.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    return tmp_path


@pytest.mark.parametrize("size", [(32, 32), (64, 40), (33, 50), (500, 37), (20, 21)])
def test_preprocessing_is_transformers(size: tuple[int, int]) -> None:
    image = picture(*size)
    expected = CLIPImageProcessorPil(**PREPROCESSOR)(image, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(
        pixels([image], ImageSpec.from_hf(PREPROCESSOR)), expected, atol=1e-5, rtol=1e-5
    )


def test_preprocessing_takes_other_modes_and_old_and_fixed_sizes() -> None:
    spec = ImageSpec.from_hf({**PREPROCESSOR, "size": 32, "crop_size": 32})
    assert spec == ImageSpec.from_hf(PREPROCESSOR)
    modes = [picture(40, 40, mode) for mode in ("L", "RGBA", "P", "CMYK")]
    assert pixels(modes, spec).shape == (4, 3, 32, 32)
    fixed = {k: v for k, v in PREPROCESSOR.items() if "crop" not in k} | {"size": {"height": 24, "width": 32}}
    assert pixels([picture(50, 20)], ImageSpec.from_hf(fixed)).shape == (1, 3, 24, 32)
    with pytest.raises(ValueError, match="centre crop"):
        ImageSpec.from_hf({**PREPROCESSOR, "do_center_crop": False})
    with pytest.raises(ValueError, match="no images"):
        pixels([], spec)


@torch.no_grad()
@pytest.mark.parametrize("layer", [-1, -2, -4])
def test_features_are_the_hidden_states_without_class_token(
    folder: Path, reference: CLIPVisionModel, layer: int
) -> None:
    tower = VisionTower.load(folder, layer)
    x = tower.preprocess([picture(40, 50), picture(60, 30)])
    expected = reference(x, output_hidden_states=True).hidden_states[layer][:, 1:]
    torch.testing.assert_close(tower(x), expected, atol=1e-5, rtol=1e-5)
    assert (tower.patches, tower.width, tower.image_size) == (16, 16, (32, 32))
    assert not any(p.requires_grad for p in tower.parameters())


@torch.no_grad()
def test_a_whole_clip_checkpoint_gives_the_same(
    folder: Path, reference: CLIPVisionModel, tmp_path: Path
) -> None:
    text = CLIPTextConfig(
        hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, vocab_size=9
    )
    clip = CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=reference.config.to_dict()))
    clip.vision_model.load_state_dict(reference.state_dict())
    whole = tmp_path / "whole"
    clip.save_pretrained(whole)
    (whole / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(VisionTower.load(whole)(x), VisionTower.load(folder)(x))


def test_unusable_folders_are_refused_by_name(folder: Path) -> None:
    weights = folder / "model.safetensors"
    config = folder / "config.json"
    content, stored = weights.read_bytes(), json.loads(config.read_text())
    for wrong in (0, -6):
        with pytest.raises(ValueError, match="select_layer"):
            VisionTower.load(folder, wrong)
    config.write_text(json.dumps({**stored, "num_hidden_layers": 5}))
    with pytest.raises(ValueError, match="missing.*layers.4"):
        VisionTower.load(folder)
    config.write_text(json.dumps({**stored, "num_hidden_layers": 3}))
    with pytest.raises(ValueError, match="unexpected.*layers.3"):
        VisionTower.load(folder)
    config.write_text(json.dumps({**stored, "model_type": "bert"}))
    with pytest.raises(ValueError, match="'bert' is no CLIP"):
        VisionTower.load(folder)
    config.write_text(json.dumps({**stored, "image_size": 40}))
    with pytest.raises(ValueError, match=str(folder)):
        VisionTower.load(folder)
    config.write_text(json.dumps(stored))
    weights.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=str(folder)):
        VisionTower.load(folder)
    weights.unlink()
    with pytest.raises(ValueError, match=str(folder)):
        VisionTower.load(folder)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ValueError, match=r"preprocessor_config\.json: no such file"):
        VisionTower.load(folder)


@torch.no_grad()
@pytest.mark.parametrize("shards", [False, True])
def test_a_flipped_bit_in_a_torch_file_is_refused(folder: Path, shards: bool) -> None:
    x = torch.randn(1, 3, 32, 32)
    wanted = VisionTower.load(folder)(x)
    file, values = as_torch(folder, shards=shards)
    assert torch.equal(VisionTower.load(folder)(x), wanted)
    flip_exponent(file, values)
    with pytest.raises(ValueError, match=rf"{file}: .*checksum of record"):
        VisionTower.load(folder)


@torch.no_grad()
def test_torch_files_without_checksums_load_as_before(folder: Path) -> None:
    x = torch.randn(1, 3, 32, 32)
    wanted = VisionTower.load(folder)(x)
    as_torch(folder, archive=False)
    assert torch.equal(VisionTower.load(folder)(x), wanted)


@pytest.fixture(scope="module")
def siglip() -> SiglipModel:
    torch.manual_seed(0)
    text = SiglipTextConfig(
        hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, vocab_size=9
    )
    config = SiglipConfig(
        text_config=text.to_dict(), vision_config=SiglipVisionConfig(**VISION | {"patch_size": 9}).to_dict()
    )
    return SiglipModel(config).eval()


@torch.no_grad()
@pytest.mark.parametrize("layer", [-1, -2, -4])
@pytest.mark.parametrize("whole", [False, True], ids=["vision", "whole"])
def test_siglip_features_are_all_its_patches(
    tmp_path: Path, siglip: SiglipModel, layer: int, whole: bool
) -> None:
    reference: SiglipVisionModel = siglip.vision_model
    (siglip if whole else reference).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(SIGLIP_PREPROCESSOR))
    tower = VisionTower.load(tmp_path, layer)
    images = [picture(40, 50), picture(60, 30, "L")]
    x = SiglipImageProcessorPil(**SIGLIP_PREPROCESSOR)(images, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(tower.preprocess(images), x, atol=1e-5, rtol=1e-5)
    expected = reference(x, output_hidden_states=True).hidden_states[layer]
    torch.testing.assert_close(tower(x), expected, atol=1e-5, rtol=1e-5)
    assert (tower.patches, tower.width) == (9, 16), "32 // 9 patches a side"
    assert len(list(tower.parameters())) == 3 + 16 * (5 + layer)


def test_siglip_of_variable_size_is_refused(tmp_path: Path) -> None:
    for kind in ("siglip2", "siglip2_vision_model"):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
        with pytest.raises(ValueError, match=r"config\.json: siglip2.*NaFlex.*fixed size"):
            VisionTower.load(tmp_path)


OPEN_CLIP = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 32, "layers": 3, "width": 16, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 8, "vocab_size": 50, "width": 8, "heads": 1, "layers": 1},
}


@pytest.fixture(scope="module")
def open_clip_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model as a local folder (`local-dir:`) and as a weight file for a model name."""
    folder = tmp_path_factory.mktemp("open_clip")
    (folder / "small-test-vit.json").write_text(json.dumps(OPEN_CLIP))
    open_clip.add_model_config(folder / "small-test-vit.json")
    torch.manual_seed(0)
    model = open_clip.create_model("small-test-vit")
    torch.save(model.state_dict(), folder / "open_clip_pytorch_model.bin")
    preprocess = open_clip.get_model_preprocess_cfg(model)
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": OPEN_CLIP, "preprocess_cfg": preprocess})
    )
    return folder


@torch.no_grad()
@pytest.mark.parametrize("form", ["small-test-vit:{}/open_clip_pytorch_model.bin", "local-dir:{}"])
def test_open_clip_features_are_those_of_the_block(open_clip_files: Path, form: str) -> None:
    tower = VisionTower.load("open_clip:" + form.format(open_clip_files))
    visual = open_clip.create_model(
        "small-test-vit", pretrained=str(open_clip_files / "open_clip_pytorch_model.bin")
    ).visual.eval()
    seen: list[torch.Tensor] = []
    visual.transformer.resblocks[-2].register_forward_hook(lambda _m, _i, output: seen.append(output))
    x = tower.preprocess([picture(40, 50), picture(60, 30)])
    visual(x)
    torch.testing.assert_close(tower(x), seen[0][:, 1:], atol=1e-5, rtol=1e-5)
    assert (tower.patches, tower.width, tower.image_size) == (16, 16, (32, 32))


@pytest.mark.parametrize("form", ["small-test-vit:{}", "local-dir:{}"])
def test_open_clip_with_a_flipped_bit_is_refused(open_clip_files: Path, tmp_path: Path, form: str) -> None:
    shutil.copytree(open_clip_files, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "open_clip_pytorch_model.bin"
    given = "open_clip:" + form.format(file if "vit" in form else tmp_path)
    weights = torch.load(file)
    torch.save(weights, file, _use_new_zipfile_serialization=False)
    VisionTower.load(given)  # without checksums
    torch.save(weights, file)
    VisionTower.load(given)
    flip_exponent(file, weights["visual.transformer.resblocks.0.mlp.c_fc.weight"])
    with pytest.raises(ValueError, match=rf"{file}: .*checksum of record"):
        VisionTower.load(given)


def test_open_clip_tags_are_looked_at_where_they_were_downloaded_to(
    open_clip_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = Path(shutil.copy(open_clip_files / "open_clip_pytorch_model.bin", tmp_path / "tagged.bin"))
    monkeypatch.setitem(_PRETRAINED, "small-test-vit", {"some": {"file": str(file)}})
    VisionTower.load("open_clip:small-test-vit:some")
    flip_exponent(file, torch.load(file)["visual.transformer.resblocks.0.mlp.c_fc.weight"])
    with pytest.raises(ValueError, match=rf"{file}: .*checksum of record"):
        VisionTower.load("open_clip:small-test-vit:some")


def test_open_clip_preprocessing_is_its_own(open_clip_files: Path) -> None:
    tower = VisionTower.load(f"open_clip:local-dir:{open_clip_files}")
    transform = open_clip.image_transform(32, is_train=False)
    image = picture(70, 45)
    torch.testing.assert_close(tower.preprocess([image])[0], transform(image), atol=1e-5, rtol=1e-5)


def test_open_clip_without_weights_is_refused(open_clip_files: Path) -> None:
    with pytest.raises(ValueError, match="open_clip:small-test-vit:FILE"):
        VisionTower.load("open_clip:small-test-vit")
    with pytest.raises(ValueError, match="cannot be loaded from"):
        VisionTower.load(f"open_clip:small-test-vit:{open_clip_files}/absent.pt")


@torch.no_grad()
def test_open_clip_models_with_a_timm_trunk(tmp_path: Path) -> None:
    vision = {"image_size": 224, "timm_model_name": "vit_tiny_patch16_224", "timm_pool": "avg"}
    (tmp_path / "small-test-timm.json").write_text(json.dumps({**OPEN_CLIP, "vision_cfg": vision}))
    open_clip.add_model_config(tmp_path / "small-test-timm.json")
    clip = open_clip.create_model("small-test-timm").eval()
    torch.save(clip.state_dict(), tmp_path / "weights.bin")
    tower = VisionTower.load(f"open_clip:small-test-timm:{tmp_path / 'weights.bin'}")
    seen: list[torch.Tensor] = []
    clip.visual.trunk.blocks[-2].register_forward_hook(lambda _m, _i, output: seen.append(output))
    x = torch.randn(1, 3, 224, 224)
    clip.visual(x)
    torch.testing.assert_close(tower(x), seen[0][:, 1:], atol=1e-5, rtol=1e-5)
    assert (tower.patches, tower.width) == (196, 192)
