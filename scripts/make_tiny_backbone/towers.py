"""First stage: both towers learn to know things, places and voices again whatever else changes.

Each is a cosine classifier over thousands of unnamed classes (metric learning) plus reconstruction: colours
of every patch, spectrum statistics of every clip, so that nothing is lost that unseen classes may differ in.

Letters: B clips, P patches, N audio tokens, Q query tokens, W tower width, D LLM width, K kinds.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPVisionModel

from model.encoders.aligner import AudioAligner
from model.encoders.beats import BEATs
from scripts.make_tiny_backbone.bank import Bank
from scripts.make_tiny_backbone.fast_modules import FastPatches, FastPositionalConv, register_attention
from scripts.make_tiny_backbone.mixer import Mixer, Sounds
from scripts.make_tiny_backbone.sizes import (
    AUDIO_PATCH,
    PATCHES,
    TinySizes,
    beats_config,
    clip_config,
    qformer_config,
)
from scripts.make_tiny_backbone.training import Optimiser, Progress, Proxies, contrast, to_bfloat16


@dataclass(frozen=True)
class TowerPlan:
    """Length of the stage."""

    steps: int
    batch: int
    rate: float = 2e-3


def new_vision(sizes: TinySizes) -> CLIPVisionModel:
    """The vision tower without its last layer, whose output is never used (see SELECT_LAYER)."""
    config = clip_config(sizes)
    config.num_hidden_layers -= 1
    config._attn_implementation = register_attention()
    vision = CLIPVisionModel(config)
    vision.get_submodule("embeddings.patch_embedding").__class__ = FastPatches
    return vision


def vision_features(vision: CLIPVisionModel, pixels: Tensor) -> Tensor:
    """(N, 3, S, S) -> (N, P, W)."""
    return vision(pixels.to(vision.dtype)).last_hidden_state[:, 1:]


def new_beats(sizes: TinySizes) -> BEATs:
    """The audio tower, started as something useful: every token's first layer adds the clip's mean spectrum.

    Nothing in BEATs tells a token which mel bins it covers, and learning that takes long. A constant channel
    under a convolution that is zero outside the clip gives at position i the sum of the kernel's first i
    taps: kernels whose sums run through sine and cosine turn such channels into a clock. The heads of the
    first layer, one per mel band, start by attending to the tokens of their band, and their values by taking
    each mel bin's mean over time.
    """
    beats = BEATs(beats_config(sizes))
    conv = beats.encoder.pos_conv[0]
    conv.__class__ = FastPositionalConv
    beats.patch_embedding.__class__ = FastPatches
    middle = conv.kernel // 2
    i = torch.arange(middle + 1).float()
    turn = torch.pi / 2
    codes = [
        torch.cos(i * turn - band * turn) + 0.5 * torch.cos(i * 2 * turn - band * 2 * turn)
        for band in range(4)
    ]
    codes += [torch.sin(i * f + p) for f in (0.06, 0.12, 0.24) for p in (0.0, 1.5)]
    clock, bins = len(codes), AUDIO_PATCH
    with torch.no_grad():
        weight = torch.randn(conv.weight_v.shape) * 0.03
        for channel, code in enumerate(codes):
            weight[channel, 0] = 0.0
            weight[channel, 0, : middle + 1] = torch.diff(code, prepend=torch.zeros(1)).flip(0) * 2.0
        conv.weight_v.copy_(weight)
        conv.weight_g.copy_(weight.norm(dim=(0, 1), keepdim=True))
        beats.layer_norm.weight[:clock] = 0.0
        beats.layer_norm.bias[:clock] = 1.0
        patches = beats.patch_embedding
        patches.bias.normal_(std=0.7)
        patches.weight[clock : clock + bins] = torch.eye(bins)[:, None, None, :] / bins * 2
        first = beats.encoder.layers[0].self_attn
        first.q_proj.weight.mul_(0.1)
        first.k_proj.weight.mul_(0.1)
        for head in range(sizes.heads):
            row = head * first.head_dim
            first.q_proj.bias[row] = 3.0 * first.head_dim**0.5
            first.k_proj.weight[row] = 0.0
            first.k_proj.weight[row, head % 4] = 1.0
        wide = torch.zeros_like(first.v_proj.weight)
        for head in range(sizes.heads):
            for k in range(min(bins, first.head_dim)):
                wide[head * first.head_dim + k, clock + k] = 1.0
        first.v_proj.weight.copy_(wide)
        nn.init.orthogonal_(first.out_proj.weight)
    return beats


def new_aligner(sizes: TinySizes) -> AudioAligner:
    """The Q-Former."""
    aligner = AudioAligner(qformer_config(sizes), sizes.queries, sizes.llm_width)
    nn.init.normal_(aligner.query_tokens, std=0.5)
    for module in aligner.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
    return aligner


class VisionHeads(nn.Module):
    """Losses on patch features."""

    def __init__(self, width: int, bank: Bank) -> None:
        super().__init__()
        self.kind = Proxies(width, bank.sizes.kinds)
        self.place = Proxies(width, bank.sizes.places)
        self.colours = nn.Linear(width, 48)

    def forward(
        self, features_BPW: Tensor, pixels: Tensor, cover_B2P: Tensor, seen_B2: Tensor, place_B: Tensor
    ) -> tuple[Tensor, dict[str, float]]:
        """Kind from the patches of each thing, place from the others, 4 x 4 colours from each patch."""
        f = features_BPW.float()
        weight = cover_B2P * (seen_B2 >= 0)[..., None]
        visible = weight.sum(-1) > 0.4
        full = weight.square()  # patches that a thing fills count more than its edges
        things = (full @ f) / full.sum(-1, keepdim=True).clamp(min=1e-3)
        one = weight + 1e-6 * torch.rand_like(weight)
        patch = f.gather(1, one.argmax(-1, keepdim=True).expand(-1, -1, f.shape[-1]))  # its fullest patch
        target = seen_B2[visible]
        y = self.kind.embed(torch.cat([things[visible], patch[visible]]))
        kind_logits = self.kind.logits(y)
        kind = contrast(y, target.repeat(2)) + 0.5 * F.cross_entropy(kind_logits, target.repeat(2))
        kind_logits = kind_logits[: len(target)]
        ground = (1 - weight.sum(1)).clamp(min=0.0) + 1e-3
        scene = (ground[:, None] @ f)[:, 0] / ground.sum(-1, keepdim=True)
        spot = torch.multinomial(ground, 1)[:, 0]
        y = self.place.embed(torch.cat([scene, f[torch.arange(len(f)), spot]]))
        place_logits = self.place.logits(y)
        place = contrast(y, place_B.repeat(2)) + 0.5 * F.cross_entropy(place_logits, place_B.repeat(2))
        place_logits = place_logits[: len(f)]
        colours = F.avg_pool2d(pixels, 4).unflatten(2, (6, 4)).unflatten(4, (6, 4))
        colours = colours.permute(0, 2, 4, 1, 3, 5).reshape(len(f), PATCHES, 48)
        rebuilt = F.mse_loss(self.colours(f), colours)
        logs = {
            "kind": (kind_logits.argmax(-1) == target).float().mean().item(),
            "place": (place_logits.argmax(-1) == place_B).float().mean().item(),
            "colours": rebuilt.item(),
        }
        return 2 * kind + place + rebuilt, logs


class AudioHeads(nn.Module):
    """Losses on the mean of the tower's output and on the aligner's tokens."""

    def __init__(self, sizes: TinySizes, bank: Bank) -> None:
        super().__init__()
        self.kind = Proxies(sizes.audio_width, bank.sizes.kinds)
        self.tokens = Proxies(sizes.queries * sizes.llm_width, bank.sizes.kinds)
        self.spectrum = nn.Linear(sizes.queries * sizes.llm_width, 3 * 128)

    def forward(
        self, features_BNW: Tensor, tokens_BQD: Tensor, sounds: Sounds, targets_BK: Tensor
    ) -> tuple[Tensor, dict[str, float]]:
        """Kinds of the voices (`targets_BK` their shares), and mean, deviation and peak of each mel bin."""
        flat = tokens_BQD.float().flatten(1)
        share, main = targets_BK.max(1)
        clear = share > 0.7
        kind = mean = torch.zeros(())
        for head, h in ((self.kind, features_BNW.float().mean(1)), (self.tokens, flat)):
            y = head.embed(h)
            logits = head.logits(y)
            mean, kind = kind, contrast(y[clear], main[clear]) + 0.5 * F.cross_entropy(logits, targets_BK)
        rebuilt = F.mse_loss(self.spectrum(flat), spectrum_statistics(sounds.fbank, ~sounds.padding))
        right = (logits.argmax(-1) == main).float().mean().item()
        return kind + 0.5 * mean + 3 * rebuilt, {"kind": right, "spectrum": rebuilt.item()}


def spectrum_statistics(fbank: Tensor, valid: Tensor) -> Tensor:
    """Mean, deviation and peak over the valid frames of each mel bin: (B, T, F), (B, T) -> (B, 3 F)."""
    weight = valid.float()[..., None] / valid.sum(-1).view(-1, 1, 1)
    mean = (fbank * weight).sum(1)
    deviation = ((fbank - mean[:, None]).square() * weight).sum(1).sqrt()
    peak = fbank.masked_fill(~valid[..., None], -9.0).amax(1)
    return torch.cat([mean, deviation * 2, peak], -1)


def draw_pool(gen: torch.Generator, classes: int, pool: int, shape: tuple[int, ...]) -> Tensor:
    """Classes from a small pool, drawn anew, so that most occur more than once in the batch."""
    chosen = torch.randperm(classes, generator=gen)[:pool]
    return chosen[torch.randint(len(chosen), shape, generator=gen)]


def draw_voices(gen: torch.Generator, batch: int, kinds: int, mixed: float) -> tuple[Tensor, Tensor, Tensor]:
    """Voices (B, 2), level of the second in dB (B,), shares of the kinds by power (B, K)."""
    heard = draw_pool(gen, kinds, batch // 3, (batch, 2))
    second_db = torch.rand(batch, generator=gen) * 16 - 16
    alone = torch.rand(batch, generator=gen) >= mixed
    heard[alone, 1] = -1
    share = torch.where(alone, 0.0, 1 / (1 + 10 ** (-second_db / 10)))
    targets = torch.zeros(batch, kinds).scatter_(1, heard[:, :1], (1 - share)[:, None])
    targets.scatter_add_(1, heard[:, 1:].clamp(min=0), share[:, None])
    return heard, second_db, targets


def train_vision(
    bank: Bank, sizes: TinySizes, plan: TowerPlan, seed: int
) -> tuple[CLIPVisionModel, nn.Module]:
    """Train the vision tower; returns it and its heads."""
    torch.manual_seed(seed)
    gen = torch.Generator().manual_seed(seed)
    mixer = Mixer(bank, seed)
    vision, heads = new_vision(sizes), VisionHeads(sizes.vision_width, bank)
    to_bfloat16(vision)
    optimiser = Optimiser([*vision.parameters(), *heads.parameters()], plan.rate, plan.steps)
    progress = Progress("vision", plan.steps, 100)
    for step in range(plan.steps):
        seen = draw_pool(gen, bank.sizes.kinds, plan.batch // 2, (plan.batch, 2))
        seen[torch.rand(plan.batch, generator=gen) < 0.4, 1] = -1
        place = draw_pool(gen, bank.sizes.places, plan.batch // 3, (plan.batch,))
        pictures = mixer.pictures(gen, seen, place)
        pixels = pictures.pixels[:, 0]
        features = vision_features(vision, pixels)
        loss, logs = heads(features, pixels, pictures.cover, seen, place)
        loss.backward()
        optimiser.step()
        progress.add(step, {"loss": loss.item(), **logs})
    optimiser.restore()
    return vision, heads


def train_audio(
    bank: Bank, sizes: TinySizes, plan: TowerPlan, seed: int
) -> tuple[BEATs, AudioAligner, nn.Module]:
    """Train the audio tower and its aligner; returns them and their heads."""
    torch.manual_seed(seed)
    gen = torch.Generator().manual_seed(seed)
    mixer = Mixer(bank, seed)
    beats, aligner, heads = new_beats(sizes), new_aligner(sizes), AudioHeads(sizes, bank)
    to_bfloat16(beats)
    to_bfloat16(aligner)
    modules = nn.ModuleList([beats, aligner, heads])
    optimiser = Optimiser(modules.parameters(), plan.rate, plan.steps)
    progress = Progress("audio", plan.steps, 100)
    for step in range(plan.steps):
        heard, second_db, targets = draw_voices(gen, plan.batch, bank.sizes.kinds, 0.35)
        sounds = mixer.sounds(gen, heard, second_db)
        features = beats(sounds.fbank.bfloat16(), sounds.padding)
        tokens = aligner(features)
        loss, logs = heads(features, tokens, sounds, targets)
        loss.backward()
        optimiser.step()
        progress.add(step, {"loss": loss.item(), **logs})
    optimiser.restore()
    return beats, aligner, heads
