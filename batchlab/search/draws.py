"""What a draw is: a seed and, on small tables, a division of its own of the training and validation rows."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from batchlab.engine.data import Divisions, TrainingData
from batchlab.engine.records import Plan
from batchlab.errors import BadInput
from batchlab.experiment import Experiment
from batchlab.rows import assigning
from batchlab.rows.split import embargo_of, times_of
from batchlab.serving.batchlab_serving import InSequence
from batchlab.strategies import Population, Strategy

TRAIN_ROWS_EVALUATED, VALIDATION_ROWS_EVALUATED = 2048, 8192
"""Losses of curves are means over at most so many rows, so that evaluating does not cost more than training."""
OWN_TRAIN_ROWS_EVALUATED = 256
DIVIDED_ROWS = 20_000
"""Up to so many training and validation rows, draws divide them anew; with more, the division hardly matters and the rows' share of the
uncertainty is told from paired losses of portions of them."""
FEWEST = 4
"""With fewer divisions than this that have rows of every class, the split's own is used for all draws."""
SHIFTS = 4
"""Of rows in the order of time so many divisions are made, each cut a quarter of the validation period earlier."""
IN_TIME = ("chronological", "walk_forward")
"""The kinds of split whose divisions are such."""
Places = NDArray[np.int32]


def thinned(experiment: Experiment) -> TrainingData:
    """Return the experiment's data with evaluations of a sample of rows, where there are many."""
    return experiment.data.thinned(TRAIN_ROWS_EVALUATED, VALIDATION_ROWS_EVALUATED, experiment.profile.seed)


def lightly(experiment: Experiment, data: TrainingData) -> TrainingData:
    """Return the data with few training rows looked at where trainings step in torch: looking at rows costs as much as training on
    some, and the training loss decides nothing."""
    if not experiment.steps_in_torch:
        return data
    return data.thinned(OWN_TRAIN_ROWS_EVALUATED, VALIDATION_ROWS_EVALUATED, experiment.profile.seed)


def sampled(data: TrainingData, validation_rows: int, seed: int) -> TrainingData:
    """Return the data with evaluations of at most so many validation rows, and of as small a part of the training rows that are looked at;
    the data themselves where there are no more."""
    (_, train), (_, held_out) = data.evaluated_in(0)
    if validation_rows >= len(held_out):
        return data
    return data.thinned(max(1, len(train) * validation_rows // len(held_out)), validation_rows, seed)


def budgeted(plan: Plan, row_count: int, fewest: int | None = None) -> Plan:
    """Return the plan of every trial: its rows, and evaluations that lie geometrically along them. Divisions may have fewer training rows
    (`fewest`) than the split, and then see them more often."""
    rows = min(plan.epochs * row_count, plan.max_rows or plan.epochs * row_count)
    return plan.model_copy(
        update={"max_rows": rows, "epochs": -(-rows // min(row_count, fewest or row_count)), "spacing": "geometric", "learning_rate": None}
    )


def divided(experiment: Experiment, count: int) -> TrainingData | None:
    """Return the pool of training and validation rows with `count` divisions of it, made as the split is: at random, by class, by group,
    by key, or at other moments. None where the rows are too many, the same in all parts, weighed, or in files."""
    import torch

    kind, sizes, data = experiment.profile.split.kind, experiment.split.sizes(), experiment.data
    pool = sizes["train"] + sizes["validation"]
    if kind == "in_sample" or pool > DIVIDED_ROWS or data.stored is not None or data.population.weights is not None:
        return None
    rows = np.concatenate([experiment.split.train, experiment.split.validation])
    found = divisions(experiment, rows, count)
    placed = data.places is not None  # among all rows already
    target = data.target if placed else torch.cat([data.target, data.validation_target])
    if experiment.table.schema.sequence is not None:
        starts = (rows - (experiment.table.span - 1)).astype(np.int32)
        found = Divisions(starts[found.train], starts[found.validation])
    if experiment.table.schema.target.classes:
        labels = target.numpy()
        kept = [place for place, train in enumerate(found.train) if len(np.unique(labels[train])) == data.output_count]
        if len(kept) < FEWEST:
            return None
        found = Divisions(found.train[kept], found.validation[kept])
    features = data.features if placed else torch.cat([data.features, data.validation_features])
    population = Population(row_count=found.train.shape[1])
    if not all(_fits(strategy, population) for strategy in experiment.profile.strategies.values()):
        return None
    return replace(data, features=features, target=target, population=population, divisions=found, places=None, sample=None)


def _fits(strategy: Strategy, population: Population) -> bool:
    """Whether the strategy can draw from rows of which only the number is known."""
    smallest = strategy.model_copy(update={"batch_rows": 1}) if strategy.takes_grid else strategy  # a search finds sizes that fit
    try:
        smallest.check(population)
    except BadInput:
        return False
    return True


def divisions(experiment: Experiment, rows: NDArray[np.int64], count: int) -> Divisions:
    """Return `count` divisions of these rows of the table (fewer of those in the order of time), as places in `rows`."""
    profile, table, sizes = experiment.profile, experiment.table, experiment.split.sizes()
    rule, share = profile.split, sizes["validation"] / len(rows)
    if rule.kind in IN_TIME:
        return _in_time(experiment, rows)
    keys, groups = table.side_column("key"), table.side_column("group")
    classes = table.target[rows] if rule.kind == "stratified" else None
    found = []
    for number in range(count):
        seed = int(np.random.default_rng([profile.seed, number]).integers(2**31))
        if rule.kind == "group" and groups is not None:
            labels = assigning.by_group(groups[rows], (share, 0.0), seed)
        elif keys is not None:
            labels = assigning.by_key(keys[rows], (share, 0.0), seed)
        else:
            labels = assigning.at_random(classes, len(rows), (share, 0.0), seed)
        found.append((np.flatnonzero(labels == assigning.TRAIN), np.flatnonzero(labels == assigning.VALIDATION)))
    return _of_one_size(found, profile.seed)


def _in_time(experiment: Experiment, rows: NDArray[np.int64]) -> Divisions:
    """Return windows of the past, each with the validation period after it in the order of time: cut at moments a quarter of that period
    apart, the latest first."""
    table, sizes, sequence = experiment.table, experiment.split.sizes(), experiment.table.schema.sequence
    times, embargo = times_of(table)[rows].astype(np.float64), embargo_of(table, experiment.profile.split)
    order = np.argsort(times, kind="stable")
    held = sizes["validation"]
    found = []
    for shift in range(SHIFTS):
        end = len(rows) - shift * held // SHIFTS
        validation = order[end - held : end]
        before = order[: end - held]
        found.append((before[times[before] < _apart(times, float(times[validation[0]]), sequence) - embargo], validation))
    latest = min(len(train) for train, _ in found)
    return Divisions(
        np.array([np.sort(train[-latest:]) for train, _ in found], np.int32), np.array([places for _, places in found], np.int32)
    )


def _apart(times: NDArray[np.float64], first: float, sequence: InSequence | None) -> float:
    """Return the moment before which rows may be trained on that are validated from `first` on: in sequence, so many moments earlier that
    neither what a model sees nor what it predicts overlaps."""
    if sequence is None:
        return first
    moments = np.unique(times)
    return float(moments[max(0, int(np.searchsorted(moments, first)) - (sequence.rows - 1 + sequence.horizon))])


def _of_one_size(found: list[tuple[NDArray[np.int64], NDArray[np.int64]]], seed: int) -> Divisions:
    """Return the divisions with the rows of the smallest of each part: what groups and keys leave uneven is left out at random."""
    sizes = [min(len(division[part]) for division in found) for part in (0, 1)]
    rng = np.random.default_rng(seed)

    def cut(places: NDArray[np.int64], size: int) -> Places:
        kept = places if len(places) == size else np.sort(rng.choice(places, size, replace=False))
        return kept.astype(np.int32)

    train, validation = (np.array([cut(division[part], size) for division in found]) for part, size in enumerate(sizes))
    return Divisions(train, validation)
