"""One cell from start to finish: skip it, resume it, refuse it, or train it; then store expert, anchor and
record.

The order of writing makes a kill harmless: expert, anchor, record, and only then the checkpoint goes. A cell
without record is unfinished; started again it resumes from the checkpoint and writes the same bits.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from data.files import sha256_file
from data.folders import anchor_file
from data.inputs import Inputs
from data.published_anchors import published_anchor
from data.run_record import differing_keys, provenance, read_identity, read_record, write_record
from data.samples import Sample
from model.language_model.anchor_lm import AnchorLM
from model.moe.anchor_files import load_anchor, save_anchor, save_published_anchor
from model.moe.anchors import Anchor
from model.moe.experts import ExpertBank
from model.moe.files import atomic_write
from model.moe.gated import exchanged
from train.cells import Cell, source_files
from train.checkpoints import ADVICE, CheckpointFolder, changed_message
from train.config import TrainConfig
from train.expert_training import ExpertTraining, Job
from train.plan import epoch_steps, micro_batches
from train.reporting import Reporting
from train.starting_point import fitted_start, starting_point

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Workshop:
    """What every cell of a study shares: the backbone is loaded once."""

    model: AnchorLM
    bank: ExpertBank  # the model's
    inputs: Inputs
    accelerator: Accelerator
    config: TrainConfig
    reporting: Reporting  # folder and title are filled in per cell
    overwrite: bool = False
    advice: str = ADVICE  # what to do where a cell's place holds the work of other settings

    def encode(self, samples: Sequence[Sample], jobs: int = 0) -> None:
        """Encode the samples' media, each process its share, and wait for all of them; `jobs` as of
        `Inputs.encode`."""
        accelerator = self.accelerator
        self.inputs.encode(
            samples, rank=accelerator.process_index, world=accelerator.num_processes, jobs=jobs
        )
        self.accelerator.wait_for_everyone()


@dataclass(frozen=True)
class CellResult:
    """What became of a cell."""

    cell: Cell
    outcome: str  # "skipped", "resumed", "trained" or "taken over"
    seconds: float  # training time of this call


def cell_identity(cell: Cell, shop: Workshop) -> dict[str, Any]:
    """What decides the cell's result, as JSON values; the hash of an expert it starts from is added when it
    exists."""
    identity = {
        "method": cell.method,
        "task_id": cell.task_id,
        "without_media": cell.without_media,
        "config": shop.config.identity(),
        "processes": shop.accelerator.num_processes,
        "data": {path.name: sha256_file(path) for path in cell.files},
        "inputs": shop.inputs.identity(),
        "base_identity": shop.inputs.base_identity,
    }
    if settings := cell.recipe.settings(cell):
        identity["settings"] = settings
    plain: dict[str, Any] = json.loads(json.dumps(identity))
    return plain


def record_file(cell: Cell) -> Path:
    """The record beside the expert."""
    return _record_of(cell.expert)


def _record_of(expert: Path) -> Path:
    return expert.with_suffix(".run.json")


def check_cell(cell: Cell, shop: Workshop) -> None:
    """Raise ValueError, before any work, if the cell's place holds the work of other settings or a damaged
    expert."""
    cell.recipe.refuse(cell, shop)
    cell.recipe.expert(shop.config.expert)
    if shop.overwrite:
        return
    wanted = cell_identity(cell, shop)
    found = read_identity(record_file(cell))
    if found is not None:
        for key in ("sources", "media"):  # known only once the earlier cells and the features are there
            found.pop(key, None)
        if differences := differing_keys(found, wanted):
            raise ValueError(changed_message(cell.expert, differences, shop.advice))
    elif cell.expert.exists() and not (cell.checkpoint / "identity.json").is_file():
        raise ValueError(
            f"{cell.expert}: exists without its record {record_file(cell).name}: who knows how it was "
            f"made; nothing was touched. {shop.advice}"
        )


def run_cell(cell: Cell, shop: Workshop, samples: Sequence[Sample]) -> CellResult:
    """Train one cell unless it is finished and unchanged; samples: those of `cell.files`, in order.

    Raises ValueError if its place holds the work of other settings (see `check_cell`), OSError if saving
    fails.
    """
    check_cell(cell, shop)
    check_sources([cell], shop.config.expert_init)
    sources = source_files(cell, shop.config.expert_init)
    identity = cell_identity(cell, shop)
    samples = cell.recipe.choose(cell, samples)
    inherited = [cell.inherited] if cell.inherited else []
    identity["sources"] = {path.name: sha256_file(path) for path in [*sources, *inherited]}
    identity["media"] = shop.inputs.media_digest(samples)
    checkpoint = CheckpointFolder(cell.checkpoint, identity, shop.advice)
    if not shop.overwrite and _finished(cell, identity, shop.advice):
        log.info("%s: finished and unchanged, skipped", cell.title)
        if shop.accelerator.is_main_process and checkpoint.matches():
            checkpoint.remove()  # a kill came between the record and this
        return CellResult(cell, "skipped", 0.0)
    if shop.overwrite:
        if shop.accelerator.is_main_process and not checkpoint.matches():
            record_file(cell).unlink(missing_ok=True)
            checkpoint.remove()
        shop.accelerator.wait_for_everyone()
    resumed = checkpoint.matches()

    anchor = None
    if cell.anchor:
        anchor = _anchor(cell, shop, samples)
    init = _initial(cell, shop, sources, anchor)
    training_key = _training_key(identity, init, plain=cell.recipe.plain(cell))
    if cell.twin and (same := _same_training(cell.twin, training_key)):
        outcome, seconds, summary = "taken over", 0.0, same
        if shop.accelerator.is_main_process:
            checkpoint.claim()  # from here on a kill leaves an expert that is known to be this run's
            with cell.twin.open("rb") as twin, atomic_write(cell.expert) as file:
                shutil.copyfileobj(twin, file)
        log.info("%s: the same training as %s, taken over", cell.title, cell.twin)
    else:
        reporting = replace(shop.reporting, folder=cell.checkpoint, title=cell.title)
        if cell.recipe.has_experts:
            with _workshop_for(cell, shop) as own:
                summary = _train(cell, own, samples, checkpoint, reporting, init)
        else:
            summary = cell.recipe.learn(cell, shop, samples, checkpoint, reporting)
        facts = (summary[key] for key in ("steps", "final_loss", "seconds"))
        log.info("%s: %d steps, loss %.4f, %.1f s", cell.title, *facts)
        outcome, seconds = "resumed" if resumed else "trained", summary["seconds"]
    cell.recipe.finish(cell, shop, samples)
    if shop.accelerator.is_main_process:
        _record(cell, shop, anchor, identity, summary, training_key)
        checkpoint.remove()
    shop.accelerator.wait_for_everyone()
    return CellResult(cell, outcome, seconds)


def _train(
    cell: Cell,
    shop: Workshop,
    samples: Sequence[Sample],
    checkpoint: CheckpointFolder,
    reporting: Reporting,
    init: Mapping[str, Tensor] | None,
) -> dict[str, Any]:
    """Train the expert and write its file; returns steps, final loss and seconds."""
    generator = torch.Generator().manual_seed(shop.config.seed * 1009 + cell.task_id)
    if init is None and shop.config.lora_init == "activations" and shop.config.expert.kind != "mlp":
        init = fitted_start(
            shop.model,
            shop.inputs,
            samples,
            generator,
            batch_size=shop.config.per_device_batch,
            without_media=cell.without_media,
        )
    shop.bank.add(cell.task_id, init=init, generator=generator)
    try:
        with cell.recipe.extra(cell, shop) as extra:
            job = Job(cell.task_id, samples, cell.without_media, extra)
            summary = ExpertTraining(
                shop.model, shop.inputs, job, shop.config, shop.accelerator, checkpoint, reporting
            ).run()
        if shop.accelerator.is_main_process:
            shop.bank.save(cell.task_id, cell.expert)
    finally:
        shop.bank.remove(cell.task_id)
    return summary


@contextmanager
def _workshop_for(cell: Cell, shop: Workshop) -> Iterator[Workshop]:
    """The workshop with a bank for what the cell's experts are made of."""
    made_of = cell.recipe.expert(shop.config.expert)
    if made_of == shop.config.expert:
        yield shop
        return
    with exchanged(shop.model.llm, shop.bank, made_of) as bank:
        shop.model.bank = bank
        try:
            yield replace(shop, bank=bank, config=replace(shop.config, expert=made_of))
        finally:
            shop.model.bank = shop.bank


def _finished(cell: Cell, identity: dict[str, Any], advice: str) -> bool:
    """Whether the record is this very run's and its files are whole."""
    found = read_identity(record_file(cell))
    if found is None:
        return False
    if differences := differing_keys(found, identity):
        raise ValueError(changed_message(cell.expert, differences, advice))
    for name, digest in read_record(record_file(cell))["files"].items():
        path = cell.anchors / name if cell.anchors and name.startswith("anchor_") else cell.experts / name
        if not path.is_file():
            log.warning("%s is recorded as finished but missing; it is trained again", path)
            return False
        if sha256_file(path) != digest:
            raise ValueError(
                f"{path}: changed since it was trained (see {record_file(cell).name}); put the "
                "original back, or add --overwrite to train it again"
            )
    return True


def check_sources(cells: Sequence[Cell], expert_init: str) -> None:
    """Raise ValueError, before any work, if a cell starts from an expert that is neither there nor one of
    `cells` before it."""
    made: set[Path] = set()
    for cell in cells:
        for path in [*source_files(cell, expert_init), *([cell.inherited] if cell.inherited else [])]:
            if path not in made and not path.is_file():
                raise ValueError(
                    f"{path}: {cell.title} starts from it, but it is missing; train the earlier task first, "
                    "or all in one run (experts with --expert_init scratch can be trained in any order)"
                )
        made.update(path for path in (cell.expert, cell.carried) if path)


def _anchor(cell: Cell, shop: Workshop, samples: Sequence[Sample]) -> Anchor:
    """Every sample once, or the published running mean over the batches of the whole training."""
    if shop.config.anchor_statistics == "once" or cell.without_media:
        return shop.inputs.anchor(cell.task_id, samples, without_media=cell.without_media)
    config, world = shop.config, shop.accelerator.num_processes
    lengths = [shop.inputs.prompt_length(sample) for sample in samples]
    size = config.per_device_batch * config.accumulation * world
    steps = [
        step for epoch in range(config.epochs) for step in epoch_steps(lengths, size, config.seed, epoch)
    ]
    batches = [batch for step in steps for batch in micro_batches(step, config.per_device_batch)]
    return published_anchor(shop.inputs, cell.task_id, samples, batches)


def _initial(
    cell: Cell, shop: Workshop, sources: Sequence[Path], anchor: Anchor | None
) -> Mapping[str, Tensor] | None:
    """The starting weights, None for a fresh expert."""
    if not sources or not cell.recipe.has_experts:
        return None
    earlier = []
    if shop.config.expert_init == "nearest" and cell.start_from is None:
        assert anchor is not None and cell.anchors is not None
        earlier = [
            load_anchor(anchor_file(cell.anchors, task), task, shop.inputs.base_identity)
            for task in range(cell.task_id)
        ]
    how = "previous" if cell.start_from else shop.config.expert_init
    return starting_point(shop.bank, how, sources, anchor, earlier)


def _training_key(
    identity: Mapping[str, Any], init: Mapping[str, Tensor] | None, *, plain: bool = True
) -> str:
    """Hash of all that decides the trained weights: what the cell is but for the name of its method, and the
    weights that it starts from in place of the files that these were chosen from. In a `plain` training the
    method's settings decide nothing."""
    idle = {"method", "sources", *(["settings"] if plain else [])}
    facts = {key: value for key, value in identity.items() if key not in idle}
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name, tensor in sorted((init or {}).items()):
        digest.update(name.encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _same_training(twin: Path, training_key: str) -> dict[str, Any] | None:
    """The summary of a twin's training, if it was the very same and its file is whole."""
    record = _record_of(twin)
    if not (record.is_file() and twin.is_file()):
        return None
    found = read_record(record)
    if found.get("training_key") != training_key or found["files"].get(twin.name) != sha256_file(twin):
        return None
    return {**found["training"], "taken_from": str(twin)}


def _record(
    cell: Cell,
    shop: Workshop,
    anchor: Anchor | None,
    identity: dict[str, Any],
    summary: dict[str, Any],
    training_key: str,
) -> None:
    """Write anchor and record of a stored expert, each atomically, the record last."""
    files = [cell.expert, *([cell.carried] if cell.carried else [])]
    if anchor is not None and cell.anchor:
        save = save_anchor if anchor.complete else save_published_anchor
        save(anchor, cell.anchor)
        files += sorted(cell.anchor.parent.glob(f"{cell.anchor.stem}.*"))
    write_record(
        record_file(cell),
        identity,
        files={path.name: sha256_file(path) for path in files},
        training=summary,
        training_key=training_key,
        provenance=provenance(summary["seconds"]),
    )
