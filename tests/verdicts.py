"""Verdicts that a search may come to: a real one, and what it would be if trainings took longer, diverged, missed the target or left."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from batchlab.analysis.objectives import Objective
from batchlab.analysis.verdict import Outcome, chosen, paired
from batchlab.config import load_profile
from batchlab.experiment import Experiment
from batchlab.rows.split import split
from batchlab.search.concluding import concluded
from batchlab.search.findings import Finding, Findings
from batchlab.search.known import Known
from batchlab.search.search import Search
from batchlab.search.space import Setting
from batchlab.search.standings import Left, Standings
from batchlab.table import pack

STRATEGIES = ["full_batch", "accumulated", "mini_batch", "data_loader"]
OVERRIDES = ["train.epochs=30", "search.optimizers=['sgd', 'adamw']", "search.rates=3", "search.tuning_seeds=2", "search.seeds=2"]
OVERRIDES += ["search.timings=4", "search.batch_rows=[8, 32]", "search.margin=0.05"]
"""So high a margin that more than two batch sizes reach the target, and there is a frontier to draw."""


def searched(tables: Path) -> Search:
    """Return a real search on 442 rows, run to its end."""
    settings = load_profile("quick", data="diabetes", strategies=STRATEGIES, overrides=OVERRIDES)
    table = pack(settings.source, settings.named_columns(), tables, settings.seed)
    search = Search(Experiment(settings, table, split(table, settings.split, settings.seed)))
    for part in search.parts():
        part.run()
    return search


def again(search: Search, known: Known) -> Search:
    """Return the search as if it had ended with other knowledge; its verdict is drawn from that."""
    other = copy.copy(search)
    other.known, other._findings = known, concluded(search.ground, replace(known, seconds=search.findings.seconds))
    return other


def departed(search: Search, setting: Setting, why: Literal["behind", "time"] = "behind") -> Search:
    """Return the search as if the setting had left the race at its last rung, and so had not been confirmed."""
    known, leader = search.known, search.known.standings.leader
    assert leader is not None
    gone = known.standings.entries[setting]
    left = Left(why, gone.rows, gone.loss, leader.setting, leader.rows, leader.loss)
    return again(search, replace(without(known, setting), standings=known.standings.without({setting: left})))


def further(left: Left) -> str:
    """Return what a text adds where the leader had seen another number of rows."""
    return "" if left.leader_rows == left.rows else f" after {left.leader_rows:,}"


def without(known: Known, *settings: Setting) -> Known:
    """Return what is known as if these settings had not been confirmed."""
    confirmed = {setting: results for setting, results in known.confirmed.items() if setting not in settings}
    return replace(known, confirmed=confirmed, sorted_of=None, sorted_results=())


def unconfirmed(search: Search) -> Search:
    """Return the search as if it had been ended in the race: nothing was confirmed, timed or measured."""
    return again(search, Known(standings=search.known.standings))


def unbegun(search: Search) -> Search:
    """Return the search as if it had been ended before anything raced."""
    return again(search, Known(standings=Standings().joined_by(search.known.standings.entries)))


def changed(found: Findings, change: Callable[[Finding], Finding], objective: Objective = "best") -> Findings:
    """Return the findings with every row of the table changed, and the choice that is then made."""
    settings, typed = [change(item) for item in found.settings], [change(item) for item in found.typed]
    choice = chosen([item.outcome for item in (*settings, *typed)], objective, found.margin)
    other = replace(found, settings=settings, typed=typed, objective=objective, choice=choice, against_typed=[])
    best = other.best
    if best is None:
        return other
    return replace(other, against_typed=[paired(item.outcome, best.outcome, "time") for item in typed if not item.outcome.diverged])


def stepping(item: Finding, seconds: float) -> Finding:
    """Return the row as if each of its steps took so many seconds, give or take a thousandth."""
    steps = seconds * np.array([0.999, 1.0, 1.001, 1.0])
    timings = replace(item.timings, seconds_per_step=tuple(steps.tolist()), alone=True)
    return replace(item, outcome=replace(item.outcome, seconds_per_step=steps), timings=timings)


def slow(search: Search) -> Search:
    """Return the search as if every step took a second, so that cost matters."""
    other = copy.copy(search)
    other._findings = dear(search.findings)
    return other


def noted(search: Search, notes: Sequence[str]) -> Search:
    """Return the search as if it had these notes."""
    other = copy.copy(search)
    other._findings = replace(search.findings, notes=notes)
    return other


def cheap(found: Findings) -> Findings:
    """Return the findings as if every step took a microsecond, so that no training takes a second."""
    return changed(found, lambda item: stepping(item, 1e-6))


def dear(found: Findings, seconds: Mapping[str, float] | None = None, objective: Objective = "best") -> Findings:
    """Return the findings as if every step took a second, or as many as `seconds` says for the row of that label."""
    return changed(found, lambda item: stepping(item, (seconds or {}).get(item.candidate.label, 1.0)), objective)


def losing(item: Finding, factor: float) -> Finding:
    """Return the row as if the loss of each of its draws were so many times what it is."""
    return replace(item, outcome=replace(item.outcome, losses=item.outcome.losses * factor))


def missed(item: Finding) -> Finding:
    """Return the row as if its curve had not come to the target."""
    never = np.full_like(item.outcome.steps, np.nan)
    return replace(item, outcome=replace(item.outcome, steps=never, rows=never))


def diverged(item: Finding) -> Finding:
    """Return the row as if every draw had diverged at its third step."""
    never, losses = np.full(1, np.nan), np.full(len(item.outcome.losses), np.inf)
    outcome: Outcome = replace(item.outcome, losses=losses, portions=None, steps=never, rows=never, test_loss=losses)
    curve = item.shown.curve
    short = replace(curve, **{name: values[:1] for name, values in vars(curve).items()})
    results = [replace(result, diverged_at=3, curve=short) for result in item.results]
    return replace(item, outcome=outcome, results=results, shown=results[0], noise=[], noise_scale=None, reason="the loss left all bounds")


def ruined(found: Findings) -> Findings:
    """Return what a search comes to when everything diverges."""
    lost = changed(found, diverged)
    return replace(lost, frontier=None, throughput_knee=None, sorted_order=None, target_loss=None, deliveries=[])
