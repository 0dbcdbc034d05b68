"""The chapter's parts on routing: confusion, what each modality contributes, the map of the anchors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.report.charts import bars, legend, scatter
from evaluation.report.document import MISSING, Block, Cell, Figure, Section, Side, Table, Text, table
from evaluation.report.markup import Markup
from evaluation.report.reading import ALL, ANCHOR_MAP, Results
from evaluation.report.scores import number, title
from evaluation.summary import TESTED

AGAIN = "evaluate again (bash eval_all_tasks.sh; answers are kept)"


def confusion_section(results: Results) -> Section:
    """Where the samples of each task were sent, for every method that routes."""
    routed = [
        name
        for name, entry in results.methods.items()
        if entry.get("routing_confusion") and name != "oracle"  # which is right by definition
    ]
    if not routed:
        text = Text("No method of this evaluation routes by features.", "gap")
        return Section("routing", "Routing", (text,))
    tables = tuple(_confusion(results, name) for name in routed)
    gap = results.methods.get(TESTED, {}).get("oracle_gap")
    texts = [
        Text("Rows are the tasks of the samples, columns the expert that answered; last stage, all seeds.")
    ]
    if gap is not None:
        texts.append(Text(f"Wrong routing costs {gap:.2f} points of MA (oracle gap).", "key"))
    return Section("routing", "Routing", (*texts, Side(tables)))


def _confusion(results: Results, name: str) -> Table:
    entry, tasks = results.methods[name], results.tasks
    abstained = entry.get("routing_abstained") or [0] * len(tasks)
    header = ["task", *tasks] + (["no expert"] if any(abstained) else [])
    rows = []
    for task, counts, none in zip(tasks, entry["routing_confusion"], abstained, strict=True):
        total = max(sum(counts) + none, 1)
        shown = [*counts, none] if any(abstained) else counts
        rows.append([Cell(task), *(_share(count, total) for count in shown)])
    accuracy = number(entry.get("routing_accuracy"), entry.get("routing_accuracy_std")).line
    return table(f"{title(name)}: {accuracy} % of the samples sent to their own task's expert", header, rows)


def _share(count: int, total: int) -> Cell:
    return Cell(str(count), note=f"{100 * count / total:.1f} %", heat=count / total) if count else Cell("0")


def modality_section(results: Results) -> Section:
    """What each modality alone would have reached, its weight in the score, and by how much it decides."""
    entry = results.methods.get(TESTED, {})
    alone = entry.get("routing_by_modality") or {}
    if not alone:
        return Section(
            "modalities",
            "Modalities",
            (Text(f"{title(TESTED)} did not run or compares no features.", "gap"),),
        )
    weights = (results.anchor_map or {}).get("weights") or {}
    total = sum(weights.values()) or 1
    margins = _margins(results)
    rows = [
        [
            name,
            number(found["accuracy"], found.get("accuracy_std")),
            str(found["n"]),
            f"{100 * weights[name] / total:.1f} %" if name in weights else MISSING,
            f"{margins[name]:+.3f}" if name in margins else MISSING,
        ]
        for name, found in alone.items()
    ]
    caption = (
        "Each modality alone: samples it would send to their own task (percent), samples that have it, its "
        "share of the weight in the routing score, and the mean margin of the own task's score over the "
        "best other's."
    )
    chance = 100 / len(results.tasks)
    shown = {
        "together": entry["routing_accuracy"],
        **{name: found["accuracy"] for name, found in alone.items()},
    }
    blocks: list[Block] = [
        Figure((bars("routed right, percent", shown, chance),), f"Dashed: chance, {chance:.1f} percent."),
        table(caption, ["modality", "routed right", "n", "weight", "margin"], rows),
    ]
    if not weights:
        blocks.append(Text(f"Weights: not recorded; {AGAIN}.", "gap"))
    return Section("modalities", "Modalities", tuple(blocks))


def _margins(results: Results) -> dict[str, float]:
    """Modality -> mean over samples of its own task's score minus the best other task's, from the answers."""
    found: dict[str, list[float]] = {}
    for position, rows in enumerate(results.answers):
        for row in rows:
            for name, scores in _modality_scores(row).items():
                own = scores.get(str(position))
                others = [
                    value for key, value in scores.items() if key != str(position) and value is not None
                ]
                if own is not None and others:
                    found.setdefault(name, []).append(own - max(others))
    return {name: sum(values) / len(values) for name, values in found.items()}


def _modality_scores(row: Mapping[str, Any]) -> Mapping[str, Mapping[str, float | None]]:
    return (row.get("routing") or {}).get("modality_scores") or {}


def map_section(results: Results) -> Section:
    """Anchors and test samples in two dimensions, all modalities together and each alone."""
    content = results.anchor_map
    if content is None:
        why = (
            "a summary file alone was given"
            if results.folder is None
            else f"{ANCHOR_MAP} is not there or damaged"
        )
        text = Text(f"Left out: {why}; {AGAIN}.", "gap")
        return Section("map", "Anchor map", (text,))
    order = {task: style for style, task in enumerate(content["candidates"])}
    named = dict(zip(order.values(), results.tasks, strict=False))
    pictures = [_map(content, view, shown, order, named) for view, shown in content["views"].items()]
    share = "; ".join(f"{view} {100 * shown['shown']:.0f} %" for view, shown in content["views"].items())
    caption = (
        f"Test samples (small) and anchors (large) where the router compares them ({content['metric']} "
        "features at unit length), on the two directions in which the anchors differ most. Crosses: sent "
        f"to another task's expert. The plane holds this share of the anchors' variance: {share}."
    )
    texts: list[Block] = [Figure(tuple(pictures), caption, legend(named, line=False))]
    if content.get("chosen") is None:
        texts.append(Text(f"The router was {content['router']}: it does not decide by these distances."))
    return Section("map", "Anchor map", tuple(texts))


def _map(
    content: Mapping[str, Any],
    view: str,
    shown: Mapping[str, Any],
    order: Mapping[int, int],
    named: Mapping[int, str],
) -> Markup:
    chosen: Sequence[int] = content.get("chosen") or content["tasks"]
    points = [
        (order[task], place[0], place[1], task == choice)
        for task, choice, place in zip(content["tasks"], chosen, shown["samples"], strict=True)
        if place is not None and task in order
    ]
    anchors = [
        (style, place[0], place[1], named.get(style, str(task)))
        for (task, style), place in zip(order.items(), shown["anchors"], strict=True)
    ]
    name = "all modalities" if view == ALL else view
    return scatter(name, points, anchors)
