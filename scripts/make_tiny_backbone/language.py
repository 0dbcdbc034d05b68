"""Second stage: the language model learns to answer questions about scenes.

What the frozen model must be good at later is carrying what is seen and heard to the place of the answer, so
that a small expert on some MLPs can name it. So cosine classifiers over all voices, looks and places, whose
classes are the towers' own frozen proxies, stand at the colon before the answer. Names come in two phases:

1. Spelled names: word pieces that tell where a proxy points, so that naming is one map for all kinds.
2. Episodes: for some dozen steps few dozen kinds and places have random names; low-rank adapters like the
   experts, drawn anew with the names, learn the names, and the model under them learns what makes that easy
   (first-order meta-learning, as in A. Nichol et al., arXiv 1803.02999).

Letters: B scenes, J questions per scene, P prefix length, S question length, T media tokens, D width.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.prompts import SYSTEM, PromptTokenizer
from scripts.make_tiny_backbone.bank import Bank
from scripts.make_tiny_backbone.fast_experts import FastExperts
from scripts.make_tiny_backbone.learner import Learner
from scripts.make_tiny_backbone.mixer import Mixer
from scripts.make_tiny_backbone.questions import Asker, Cast, Question, draw_cast
from scripts.make_tiny_backbone.text import FEW, MANY, NamePieces, Names
from scripts.make_tiny_backbone.towers import vision_features
from scripts.make_tiny_backbone.training import Optimiser, Progress, to_bfloat16

IGNORE = -100


@dataclass(frozen=True)
class LanguagePlan:
    """Length and shape of the stage."""

    steps: int
    batch: int = 24  # B
    questions: int = 6  # J
    rate: float = 1.5e-3
    episode_share: float = 0.25  # of the steps, at the end
    episode_steps: int = 50
    kinds: int = 60  # per episode
    places: int = 20
    fast_rate: float = 3e-3
    many_wordings: bool = False
    carry: float = 1.0  # weight of the auxiliary classifiers
    towers: float = 0.0  # weight of classifiers on the towers, which learn along; 0: they are frozen
    frames: int = 1


class Template:
    """Token ids of the v1 prompt around media and question."""

    def __init__(self, tokenizer: PromptTokenizer) -> None:
        self.tokenizer = tokenizer
        self.opening = [1, *tokenizer.encode(f"{SYSTEM} USER: ")]
        self.newline = tokenizer.encode("\n")
        self.cache: dict[str, list[int]] = {}

    def question(self, words: str) -> list[int]:
        """Ids from the line break before a question to the colon after ASSISTANT."""
        if words not in self.cache:
            self.cache[words] = self.tokenizer.encode(f"\n{words} ASSISTANT:")
        return self.cache[words]


@dataclass(frozen=True)
class Segments:
    """Questions of B scenes, each padded to S tokens: they share the prefix and do not see each other."""

    ids: Tensor  # (B, J * S)
    labels: Tensor  # (B, J * S) next-token labels at answer positions, IGNORE elsewhere
    starts: Tensor  # (B, J) position of the colon, from which the first answer token is told
    topics: Tensor  # (B, J) what the answer is about: HEARD, SEEN, SITE or -1
    targets: Tensor  # (B, J) number of that kind or place, -1 none
    length: int  # S


def build_segments(template: Template, questions: list[list[Question]]) -> Segments:
    """Token ids and labels of all questions."""
    rows = [[(template.question(q.words), [*q.answer, 2]) for q in scene] for scene in questions]
    length = max(len(a) + len(b) - 1 for scene in rows for a, b in scene)
    batch, count = len(rows), len(rows[0])
    ids = torch.zeros(batch, count, length, dtype=torch.int64)
    labels = torch.full((batch, count, length), IGNORE)
    starts = torch.zeros(batch, count, dtype=torch.int64)
    for b, scene in enumerate(rows):
        for j, (asked, answer) in enumerate(scene):
            whole = asked + answer
            ids[b, j, : len(whole) - 1] = torch.tensor(whole[:-1])
            labels[b, j, len(asked) - 1 : len(whole) - 1] = torch.tensor(answer)
            starts[b, j] = j * length + len(asked) - 1
    topics = torch.tensor([[q.topic for q in scene] for scene in questions])
    targets = torch.tensor([[q.target for q in scene] for scene in questions])
    return Segments(ids.flatten(1), labels.flatten(1), starts, topics, targets, length)


@dataclass(frozen=True)
class Media:
    """Tokens of B scenes."""

    video: Tensor | None  # (B, P, D)
    audio: Tensor | None  # (B, Q, D)
    centre: Tensor  # (B, 2) horizontal places of the things
    loss: Tensor  # of the classifiers on the towers, 0 while these are frozen


def block_mask(prefix: int, count: int, length: int) -> tuple[Tensor, Tensor]:
    """Additive mask (1, 1, N, N) and positions (1, N) of a prefix and `count` segments after it."""
    segment = torch.cat([torch.full((prefix,), -1), torch.arange(count).repeat_interleave(length)])
    total = len(segment)
    causal = torch.ones(total, total).tril().bool()
    same = (segment[:, None] == segment[None]) | (segment[None] == -1)
    mask = torch.zeros(total, total).masked_fill(~(causal & same), -1e9)
    positions = torch.cat([torch.arange(prefix), prefix + torch.arange(length).repeat(count)])
    return mask[None, None].bfloat16(), positions[None]


class Carry(nn.Module):
    """Cosine classifier whose classes are the towers' own proxies, frozen: their geometry is to reach the
    answer.
    """

    def __init__(self, width: int, proxies: Tensor) -> None:
        super().__init__()
        self.project = nn.Linear(width, proxies.shape[1])
        self.register_buffer("proxies", F.normalize(proxies.detach().float(), dim=-1))

    def forward(self, h: Tensor) -> Tensor:
        """(N, width) -> (N, classes)."""
        return F.normalize(self.project(h.float()), dim=-1) @ self.proxies.T * 20.0


class LanguageStage:
    """State of the stage; `run` trains."""

    def __init__(
        self,
        bank: Bank,
        learner: Learner,
        tokenizer: PromptTokenizer,
        pieces: list[str],
        plan: LanguagePlan,
        seed: int,
        spelled: Names | None = None,
    ) -> None:
        """`spelled`: names of an earlier stage to go on with."""
        torch.manual_seed(seed)
        self.bank, self.learner, self.plan = bank, learner, plan
        self.rng = np.random.default_rng(seed)
        self.gen = torch.Generator().manual_seed(seed)
        self.mixer = Mixer(bank, seed)
        self.template, self.asker = (
            Template(tokenizer),
            Asker(bank, tokenizer, MANY if plan.many_wordings else FEW),
        )
        self.names = NamePieces(pieces)
        for module in (learner.vision, learner.beats, learner.aligner, learner.projector, learner.llm):
            to_bfloat16(module)
        slow = [learner.llm, learner.projector, learner.aligner]
        width = learner.llm.config.hidden_size
        self.middle = 4  # the carried evidence is also read here, before the layers that speak
        self.heads = nn.ModuleList(Carry(width, proxies) for proxies in learner.proxies for _ in range(2))
        self.tower_heads = nn.ModuleList(Carry(p.shape[1], p) for p in learner.proxies)
        if plan.towers:
            slow += [learner.vision, learner.beats, self.tower_heads]
        parameters = [p for module in (*slow, self.heads) for p in module.parameters()]
        self.optimiser = Optimiser(parameters, plan.rate, plan.steps)
        self.fast: FastExperts | None = None
        sizes = bank.sizes
        self.kinds, self.places = np.arange(sizes.kinds), np.arange(sizes.places)
        voices, looks, places = (p.detach().float().numpy() for p in learner.proxies)
        self.spelled = spelled or self.names.spell_names(self.rng, (voices, looks, places))
        self.words = self.spelled

    def new_episode(self) -> None:
        """Draw kinds, places, names and fresh adapters."""
        sizes = self.bank.sizes
        if self.fast is None:
            self.fast = FastExperts(self.learner.llm)
        self.kinds = self.rng.choice(sizes.kinds, self.plan.kinds, replace=False)
        self.places = self.rng.choice(sizes.places, self.plan.places, replace=False)
        self.words = self.names.draw_names(self.rng, sizes.kinds, sizes.places)
        self.fast.reset(self.plan.fast_rate)

    def media(self, cast: Cast, with_video: bool, with_audio: bool) -> Media:
        """New pictures and sounds of the cast, through the towers."""
        learning = self.plan.towers > 0
        pictures = self.mixer.pictures(self.gen, cast.seen, cast.place, self.plan.frames)
        video = audio = None
        loss = torch.zeros(())
        if with_video:
            with torch.set_grad_enabled(learning):
                patches = vision_features(self.learner.vision, pictures.pixels.flatten(0, 1))
            tokens = self.learner.projector(patches)
            video = tokens.unflatten(0, (-1, self.plan.frames)).mean(1)
            if learning:
                features = patches.unflatten(0, (-1, self.plan.frames)).mean(1).float()
                loss = loss + self.vision_loss(features, pictures.cover, cast)
        if with_audio:
            sounds = self.mixer.sounds(self.gen, cast.heard, cast.second_db)
            with torch.set_grad_enabled(learning):
                outputs = self.learner.beats(sounds.fbank.bfloat16(), sounds.padding)
            audio = self.learner.aligner(outputs)
            if learning:
                alone = cast.heard[:, 1] < 0
                logits = self.tower_heads[0](outputs.float().mean(1)[alone])
                loss = loss + F.cross_entropy(logits, cast.heard[alone, 0])
        return Media(video, audio, pictures.centre, loss)

    def vision_loss(self, features_BPW: Tensor, cover_B2P: Tensor, cast: Cast) -> Tensor:
        """Looks from the patches that things fill, places from the others."""
        seen = (cast.seen >= 0) & (cover_B2P.sum(-1) > 0.4)
        full = cover_B2P.square()
        things = (full @ features_BPW) / full.sum(-1, keepdim=True).clamp(min=1e-3)
        ground = (1 - cover_B2P.sum(1)).clamp(min=0.0) + 1e-3
        scene = (ground[:, None] @ features_BPW)[:, 0] / ground.sum(-1, keepdim=True)
        looks = F.cross_entropy(self.tower_heads[1](things[seen]), cast.seen[seen])
        return looks + F.cross_entropy(self.tower_heads[2](scene), cast.place)

    def prefix(self, video: Tensor | None, audio: Tensor | None) -> Tensor:
        """Embeddings of everything before the line break that starts a question: (B, P, D)."""
        embed, batch = self.learner.llm.get_input_embeddings(), self.plan.batch

        def words(ids: list[int]) -> Tensor:
            return embed(torch.tensor(ids)).expand(batch, -1, -1)

        parts = [words(self.template.opening)]
        for number, tokens in enumerate(t for t in (video, audio) if t is not None):
            parts += [words(self.template.newline)] if number else []
            parts += [tokens]
        return torch.cat(parts, 1)

    def loss(self) -> tuple[Tensor, dict[str, float]]:
        """Loss of one fresh batch."""
        plan, llm = self.plan, self.learner.llm
        cast = draw_cast(self.rng, plan.batch, self.kinds, self.places)
        only = self.rng.random()  # some batches have pictures or sounds only
        media = self.media(cast, only > 0.05, only < 0.95)
        asked = [
            self.asker.ask(self.rng, cast, b, media.centre[b], self.words, plan.questions)
            for b in range(plan.batch)
        ]
        segments = build_segments(self.template, asked)
        prefix = self.prefix(media.video, media.audio)
        embeds = torch.cat([prefix, llm.get_input_embeddings()(segments.ids)], 1)
        mask, positions = block_mask(prefix.shape[1], plan.questions, segments.length)
        told = segments.labels != IGNORE
        if self.fast is not None:
            self.fast.tell(told, prefix.shape[1])
        states = llm.model(
            inputs_embeds=embeds,
            attention_mask=mask.expand(plan.batch, -1, -1, -1),
            position_ids=positions,
            use_cache=False,
            output_hidden_states=True,
        ).hidden_states
        last = states[-1][:, prefix.shape[1] :]
        logits = llm.lm_head(last[told])
        answer = F.cross_entropy(logits.float(), segments.labels[told])
        carry, logs = self.carry(segments, [states[self.middle][:, prefix.shape[1] :], last])
        first = F.one_hot(segments.starts, segments.labels.shape[1]).sum(1).bool()[told]
        right = (logits.argmax(-1) == segments.labels[told])[first].float().mean().item()
        loss = answer + plan.carry * carry + plan.towers * media.loss
        return loss, {"answer": answer.item(), "first": right, **logs}

    def carry(self, segments: Segments, states: list[Tensor]) -> tuple[Tensor, dict[str, float]]:
        """Classify voice, look or place from the states at the colons."""
        rows = torch.arange(len(segments.starts))[:, None]
        total, logs = torch.zeros(()), {}
        for topic, name in enumerate(("heard", "seen", "site")):
            known = segments.topics == topic
            target = segments.targets[known]
            if not len(target):
                continue
            for place, state in enumerate(states):
                logits = self.heads[2 * topic + place](state[rows, segments.starts][known])
                total = total + F.cross_entropy(logits, target) * len(target) / segments.topics.numel()
            logs[name] = (logits.argmax(-1) == target).float().mean().item()
        return total, logs

    def run(self) -> None:
        """All steps."""
        progress = Progress("language", self.plan.steps, 25)
        first = round(self.plan.steps * (1 - self.plan.episode_share))
        for step in range(self.plan.steps):
            if step >= first and (step - first) % self.plan.episode_steps == 0:
                self.new_episode()
            loss, logs = self.loss()
            loss.backward()
            self.optimiser.step()
            if self.fast is not None:
                self.fast.step()
            progress.add(step, {"loss": loss.item(), **logs})
        if self.fast is not None:
            self.fast.remove()
        self.optimiser.restore()
