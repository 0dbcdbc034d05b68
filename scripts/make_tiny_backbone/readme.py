"""Text of `checkpoints/tiny/README.md`, made from what the script measured."""

from collections.abc import Mapping
from typing import Any

PARTS = (
    "| LLM, projector, audio aligner, tokenizer | `AVQACL-MoE-base/` | LLaMA {llm_layers} x {llm_width}, MLP"
    " {llm_mlp}, {llm_heads} heads, {vocabulary} pieces; Q-Former {qformer_layers} x {audio_width}, {queries}"
    " queries |\n"
    "| vision tower | `clip-vit-large-patch14-336/` | ViT {vision_layers} x {vision_width}, 96 px, patch 16"
    " (features come from `hidden_states[-2]`, so the last layer is unused: all zero) |\n"
    "| audio tower | `BEATs_iter3_plus_AS2M.pt` | BEATs {audio_layers} x {audio_width}, patch 32 x 32, window"
    " 4.175 s |"
)

TEXT = """# Tiny backbone

A whole audio-visual backbone in under 10 MB, in the layout of the published AVQACL-MoE checkpoints: the same
code loads the published 7B model by changing paths. Made from nothing by `bash scripts/make_tiny_backbone.sh`
(seed {seed}), which also writes this file.

| part | file | sizes |
|---|---|---|
{parts}

The names of files and folders are the published ones, so that every default path has its counterpart here;
the contents are not: no published weight is inside.

## What it was trained on

A procedural world (`scripts/tiny_world`): {kinds} unnamed kinds with a look and a voice and {places} unnamed
places, mixed into new scenes at every step. No photograph, no recording and no text of others.

1. **Towers** ({vision_steps} steps of {vision_batch} pictures, {audio_steps} steps of {audio_batch} sounds).
   Metric learning over all kinds and places: view, place, position, size, side and light vary, and part and
   speed of the recording, level, noise and a second voice. Colours and spectra must be rebuilt from the
   features, so that nothing is lost in which unseen things may differ.
2. **Language model** with projector and aligner ({first_steps} + {more_steps} steps of {batch} scenes with
   {questions} questions each): what is heard, seen, both or hidden, where it is, what happens. Classifiers at
   the colon before the answer tell what is to be carried there. Answers are made-up names, spelled so that
   alike things have alike names. In the last {episode_percent:.0f} % of the first part and the last
   {more_percent:.0f} % of the second they are random: every {episode_steps} steps
   {episode_kinds} kinds and {episode_places} places get new ones, learned by fresh
   low-rank adapters of the form of the experts, while the model below learns what makes that easy; adapters
   and names are thrown away. The second part asks in many more wordings.

No question is worded as one of the tasks', and no answer names a thing of the tasks: the bare backbone scores
about zero on them.

## Linear probes

Ridge classifiers on frozen features, {classes} kinds and {classes} places that pre-training never saw,
{train} clips per class to fit and {test} to test (percent right; chance is {chance:.1f}):

| probe | trained | random weights |
|---|---|---|
{rows}

## Time

{time}; in all {total:.0f} minutes on two shared cores.
"""


def render(
    plan: Mapping[str, Any], probes: Mapping[str, tuple[float, float]], minutes: Mapping[str, float]
) -> str:
    """Fill in the text: plan as a nested dict, probe accuracies (trained, random) in percent."""
    sizes, language = plan["sizes"], plan["language"]
    return TEXT.format(
        parts=PARTS.format(**sizes),
        seed=plan["seed"],
        kinds=plan["bank"]["kinds"],
        places=plan["bank"]["places"],
        vision_steps=plan["vision"]["steps"],
        vision_batch=plan["vision"]["batch"],
        audio_steps=plan["audio"]["steps"],
        audio_batch=plan["audio"]["batch"],
        first_steps=language["steps"],
        more_steps=plan["more"]["steps"],
        batch=language["batch"],
        questions=language["questions"],
        episode_percent=100 * language["episode_share"],
        more_percent=100 * plan["more"]["episode_share"],
        episode_steps=language["episode_steps"],
        episode_kinds=language["kinds"],
        episode_places=language["places"],
        **{name: plan["probes"][name] for name in ("classes", "train", "test")},
        chance=100 / plan["probes"]["classes"],
        rows="\n".join(f"| {name} | {t:.1f} | {r:.1f} |" for name, (t, r) in probes.items()),
        time=", ".join(f"{name} {m:.1f} min" for name, m in minutes.items()),
        total=sum(minutes.values()),
    )
