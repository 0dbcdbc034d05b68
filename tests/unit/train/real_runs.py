"""Real training runs on the CPU whose memory is tallied: tiny backbone, and a middle-sized random one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState

from data.feature_store import FeatureStore
from data.inputs import Inputs
from data.prompts import PromptTokenizer
from data.samples import Sample, read_samples
from data.workload import MediaTokens, count_workload
from model.encoders.audio import AudioTower
from model.encoders.features import MediaEncoder
from model.encoders.images import ImageSpec
from model.encoders.vision import VisionTower
from model.language_model.anchor_lm import AnchorLM
from model.language_model.backbone import Backbone, find_checkpoints, load_backbone
from model.moe.experts import ExpertBank, ExpertConfig
from model.moe.gated import open_bank
from model.planning.skeleton import Configs, build_skeleton, read_configs
from tests.memory_tally import MemoryTally
from train.budget import Asking, Budget, Machine, make_budget
from train.checkpoints import CheckpointFolder
from train.config import TrainConfig
from train.expert_training import ExpertTraining, Job
from train.reporting import Reporting

ROOT = Path(__file__).resolve().parents[3]
MIDDLE = {  # of the LLM; the rest as in the tiny backbone
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "intermediate_size": 1024,
    "vocab_size": 8192,
    "query_tokens_size": 24,
}
MIDDLE_VISION = {"hidden_size": 192, "intermediate_size": 768, "num_attention_heads": 6, "image_size": 128}


def tiny_configs() -> Configs:
    return read_configs(find_checkpoints(ROOT / "checkpoints" / "tiny")[0])


def middle_configs() -> Configs:
    """Larger than the tiny backbone in every part, with its audio tower."""
    tiny = tiny_configs()
    assert not isinstance(tiny.vision, str)
    vision = {**tiny.vision, **MIDDLE_VISION}
    return Configs(tiny.source, {**tiny.base, **MIDDLE}, vision, tiny.audio, tiny.qformer)


@dataclass(frozen=True)
class Setting:
    """A backbone with real questions about real media."""

    backbone: Backbone
    configs: Configs
    inputs: Inputs
    samples: list[Sample]

    def budget(self, config: TrainConfig, asking: Asking | None = None) -> Budget:
        """What is predicted."""
        sizes = build_skeleton(self.configs).sizes
        workload = count_workload(
            [self.samples],
            [],
            num_frames=8,
            tokens=MediaTokens(sizes.vision.patches, sizes.aligner.queries),
            tokenizer=PromptTokenizer(self.backbone.tokenizer),
        )
        return make_budget(sizes, config, workload, Machine(), asking or Asking())

    def answered(self, expert: ExpertConfig, new_tokens: int) -> int:
        """Peak bytes of tensors while all samples are answered at once, by two experts in turn."""
        llm = self.backbone.llm
        bank = ExpertBank(llm, expert, self.backbone.identity)
        try:
            for task in (0, 1):
                bank.add(task, generator=torch.Generator().manual_seed(task))
            model = AnchorLM(llm, bank).eval()
            prompts = self.inputs.batch(self.samples, with_answers=False)
            tally = MemoryTally()
            tally.add([*model.parameters(), *self.backbone.encoder.parameters()])
            with tally:
                model.generate(prompts, [row % 2 for row in range(len(prompts))], new_tokens, eos_id=-1)
            return tally.peak
        finally:
            bank.detach()

    def trained(self, config: TrainConfig, folder: Path) -> int:
        """Peak bytes of tensors while an expert is trained."""
        for state in (AcceleratorState, GradientState):
            state._reset_state()
        llm = self.backbone.llm
        bank = open_bank(llm, config.expert, self.backbone.identity)
        try:
            bank.add(0, generator=torch.Generator().manual_seed(0))
            model = AnchorLM(llm, bank)
            if config.gradient_checkpointing:
                model.enable_gradient_checkpointing()
            training = ExpertTraining(
                model,
                self.inputs,
                Job(0, self.samples),
                config,
                Accelerator(
                    cpu=True, mixed_precision="no" if config.precision == "fp32" else config.precision
                ),
                CheckpointFolder(folder, {}),
                Reporting(folder=folder, progress=False),
            )
            tally = MemoryTally()
            tally.add([*model.parameters(), *self.backbone.encoder.parameters()])
            with tally:
                training.run()
            return tally.peak
        finally:
            bank.detach()


def setting(kind: str, store: Path, dtype: torch.dtype = torch.float32, count: int = 8) -> Setting:
    """The tiny backbone as it is, or the middle-sized one with random weights."""
    paths, _ = find_checkpoints(ROOT / "checkpoints" / "tiny")
    tiny = load_backbone(paths, dtype=dtype)
    configs = tiny_configs() if kind == "tiny" else middle_configs()
    backbone = tiny if kind == "tiny" else random_backbone(configs, tiny, dtype)
    samples = read_samples(ROOT / "data_sample" / "train_Come_From.json")[:count]
    inputs = Inputs(backbone, FeatureStore(store, backbone.encoder, dtype=dtype), quiet=True)
    inputs.encode(samples)
    return Setting(backbone, configs, inputs, samples)


def random_backbone(configs: Configs, tiny: Backbone, dtype: torch.dtype) -> Backbone:
    """The modules of a skeleton with random weights, behind the tiny backbone's tokenizer."""
    torch.manual_seed(0)
    made = build_skeleton(configs, device="cpu")
    side = made.vision.config.image_size
    encoder = MediaEncoder(
        VisionTower(made.vision, ImageSpec(side, side), -2),
        made.projector,
        AudioTower(made.audio, configs.base["audio_window_seconds"]),
        made.aligner,
    )
    llm = made.llm.to(dtype).requires_grad_(False).eval()
    return Backbone(llm, tiny.tokenizer, encoder, "random", dict(configs.base), tiny.paths)
