"""Split-AVQA: four question types of AVQA, learned one after the other.

Reads three shapes: AVQA's own files (`train_qa.json`, `val_qa.json`; the answer is the position of the right
choice), the files per task of the AVQACL benchmark (the answer as a text, with the class of the sound), and
the sample files per task published with AVQACL-MoE. AVQA has no test file, and the published tasks are a
selection (clips of the 120 sound classes that all four question types share): from AVQA's own files, half of
the clips of val are the test and counts differ from the published ones.

Sources: AVQA (Yang et al., ACM MM 2022), AVQACL (CVPR 2025), the README of AVQACL-MoE.
"""

from __future__ import annotations

from data.benchmarks.items import Fields, Item, from_sample
from data.benchmarks.recipe import Recipe, TaskPlan
from data.problems import brief

TASKS = (
    TaskPlan("Come_From", "Come"),
    TaskPlan("Happening", "Happening"),
    TaskPlan("Where", "Where"),
    TaskPlan("Which", "Which"),
)
KEYS = tuple(task.key for task in TASKS)
ALIASES = {  # what the annotations use for one thing: places with and without preposition, spellings
    "automobile": ["car"],
    "bedroom": ["in the bedroom"],
    "cage": ["in the cage", "inside the cage"],
    "chicken coop": ["in a chicken coop"],
    "courtyard": ["in the courtyard"],
    "cowbell": ["cow-bells"],
    "desert": ["in the desert"],
    "field": ["in the field"],
    "forest": ["in the forest"],
    "highway": ["on the highway"],
    "pigsty": ["in the pigsty"],
    "pond": ["in the pond"],
    "road": ["on the road"],
    "stage": ["on the stage"],
    "street": ["in the street", "on the street"],
    "swimming pool": ["in the swimming pool"],
    "toilet flush": ["flush the toilet", "toilet flush sound", "toilet flushing"],
    "woods": ["in the woods"],
    "zoo": ["in the zoo"],
}


def parse(fields: Fields, task: str | None) -> Item | None:
    """One question; None for a question type that is no task (Why, When, Used For, Before Next)."""
    if "conversations" in fields.values:
        return from_sample(fields, task)
    kind = fields.text("question_type").replace(" ", "_")
    if task is not None and kind != task:
        raise ValueError(f"question_type: got {kind!r} in the file of {task!r}; move the question")
    if kind not in KEYS:
        return None
    return Item(
        fields.id("id"),
        kind,
        fields.text("video_name").removesuffix(".mp4").removesuffix("_trimmed"),
        fields.text("question_text"),
        _answer(fields),
        labels=fields.labels("label"),
    )


def _answer(fields: Fields) -> str:
    """The answer as a text: given, or the choice at the given position."""
    answer, choices = fields.values.get("answer"), fields.values.get("multi_choice")
    if isinstance(answer, str):
        return fields.text("answer")
    if not isinstance(choices, list) or not choices:
        raise ValueError(f"multi_choice: got {brief(choices)}, expected a list of choices")
    if isinstance(answer, bool) or not isinstance(answer, int) or not 0 <= answer < len(choices):
        raise ValueError(f"answer: got {brief(answer)}, expected a text or 0 to {len(choices) - 1}")
    return Fields({"multi_choice": choices[answer]}).text("multi_choice")


RECIPE = Recipe(
    title="Split-AVQA",
    tasks=TASKS,
    parse=parse,
    id_key="id",
    whole_files={"train": ("train_qa.json",), "val": ("val_qa.json",), "test": ("test_qa.json",)},
    known={
        "train": (None, None, 3585, None),
        "val": (1783, 899, 701, 2301),
        "test": (1849, 928, 749, 2352),
    },
    halve_val=True,
    aliases=ALIASES,
)
