"""Whether verdicts hold: searches within a limit, their settings trained afresh, and how often intervals and differences are right."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchlab.analysis.paired import Sample, differences
from batchlab.analysis.verdict import NEGLIGIBLE, chosen, paired
from batchlab.config import Profile
from batchlab.engine.data import TrainingData
from batchlab.engine.loop import train
from batchlab.engine.records import Trial, TrialResult
from batchlab.experiment import Experiment
from batchlab.report.wording import verdict_text
from batchlab.rows.split import split
from batchlab.search.concluding import concluded
from batchlab.search.draws import divided, thinned
from batchlab.search.evidence import Goal, goal_of, outcome_of
from batchlab.search.findings import Finding, Findings
from batchlab.search.records import verdict_of
from batchlab.search.search import Search
from batchlab.search.space import Candidate
from batchlab.search.work import confirming_marks
from batchlab.table import pack

FIRST_NEW_SEED = 7_000_001
NEW_DRAWS, FEW_NEW_DRAWS = 10, 4
"""Settings are trained afresh with so many draws: on small tables, and on large ones, where it takes long."""
ERROR = 0.05
"""The chance, over all comparisons of one table, that a difference is called which is not there."""
Numbers = NDArray[np.float64]


def experiment_of(profile: Profile, folder: Path) -> Experiment:
    """Return the profile's experiment, its rows packed under the folder."""
    table = pack(profile.source, profile.named_columns(), folder / "tables", profile.seed, profile.checks)
    experiment = Experiment(profile, table, split(table, profile.split, profile.seed))
    _ = experiment.data
    return experiment


def searched(experiment: Experiment) -> Search:
    """Run a whole search."""
    search = Search(experiment)
    for part in search.parts():
        part.run()
    return search


def told(search: Search) -> dict[str, Any]:
    """Return the verdict in numbers and words."""
    found = search.findings
    verdict = verdict_of(found, verdict_text(found)).model_dump(exclude={"settings", "periods"})
    return verdict | {
        "limit_minutes": found.limit_minutes,
        "rows_of_table": [
            {
                "label": item.candidate.label,
                "optimizer": item.candidate.optimizer.kind,
                "learning_rate": item.learning_rate,
                "status": item.outcome.status,
                "loss": item.outcome.loss,
                "rows": item.outcome.budget_rows,
            }
            for item in (*found.settings, *found.typed)
        ],
    }


class Afresh:
    """Trains settings of a search with draws that it has not seen: new seeds and, on small tables, new divisions."""

    def __init__(self, search: Search, count: int | None = None) -> None:
        self.search, exp = search, search.experiment
        few = search.ground.data.divisions is None
        self.count = count or (FEW_NEW_DRAWS if few else NEW_DRAWS)
        other = Experiment(exp.profile.model_copy(update={"seed": exp.profile.seed + 1_000}), exp.table, exp.split)
        self.data: TrainingData = (None if few else divided(other, self.count)) or thinned(exp)

    def trained(self, candidate: Candidate, rows: int) -> list[TrialResult]:
        """Return trainings of the setting for so many rows."""
        exp, setting = self.search.experiment, candidate.setting
        plan = self.search.plan.model_copy(update={"optimizer": setting.optimizer, "patience": None, "keep": "last"})
        divisions = 1 if self.data.divisions is None else len(self.data.divisions.train)
        trials = [Trial(setting.learning_rate, FIRST_NEW_SEED + draw, division=draw % divisions) for draw in range(self.count)]
        marks = confirming_marks(rows)
        return train(self.data, exp.model, setting.updates, trials, plan, exp.loss, exp.device, marks=marks, weights=False)


def held(search: Search) -> dict[str, Any]:
    """Train the recommended setting and all others of the table afresh; say how the recommended one compares with each.

    What left the race sees as many rows as the recommended one; what people type too.
    """
    found, afresh = search.findings, Afresh(search)
    best = found.best
    assert best is not None
    rows = int(best.outcome.budget_rows)
    own = sample(afresh, best.candidate, rows)
    others: list[tuple[Finding, Sample]] = []
    for item in _distinct(found, best):
        sees = max(rows, int(item.outcome.budget_rows))
        if item.candidate.batch_rows <= sees and item.outcome.status != "diverged":
            fresh = sample(afresh, item.candidate, sees)
            if np.isfinite(fresh.losses).all():  # one that diverges now and then is better than nobody
                others.append((item, fresh))
    compared = []
    for item, other in others:
        _, apart = differences([other, own], 0)
        low = apart.low(ERROR / max(len(others), 1))
        compared.append(
            {
                "label": item.candidate.label,
                "status": item.outcome.status,
                "worse_by": apart.value,
                "surely_by": low,
                "detectably_worse": bool(low > NEGLIGIBLE),
                "beyond_margin": bool(low > found.margin),
            }
        )
    mean = float(own.losses.mean()) * found.loss_unit
    return {"fresh_loss": mean, "in_interval": found.choice is not None and found.choice.loss.holds(mean), "others": compared}


def _distinct(found: Findings, best: Finding) -> list[Finding]:
    """Return the rows of the table whose settings differ from the recommended one and from each other."""
    kept = {item.candidate.setting: item for item in reversed((*found.settings, *found.typed))}
    kept.pop(best.candidate.setting, None)
    return list(kept.values())[::-1]


def sample(afresh: Afresh, candidate: Candidate, rows: int) -> Sample:
    """Return the losses of fresh trainings as they are compared."""
    results = afresh.trained(candidate, rows)
    losses = np.array([np.inf if result.diverged_at is not None else result.curve.validation_loss[-1] for result in results])
    shared = afresh.data.divisions is None
    portions = np.array([result.curve.portions[-1] for result in results]) if shared and np.isfinite(losses).all() else None
    return Sample(losses, portions)


def coverage(search: Search, repetitions: int, most: int = 400) -> dict[str, Any]:
    """Confirm a finished race again and again with fresh draws, and say how often the intervals of the chosen setting's loss and of its
    seconds to the target cover what `most` fresh trainings come to: their mean loss, and their mean curve's seconds to the target that
    they all together set."""
    known, ground = search.known, search.ground
    count = len(next(iter(known.confirmed.values())))
    pools = {
        setting: Afresh(search, most).trained(_candidate(search, setting), results[0].rows_seen)
        for setting, results in known.confirmed.items()
    }
    rng, whole = np.random.default_rng(0), goal_of(pools, search.rule.margin, None)
    assert whole is not None
    target = Goal(whole.target[:1], whole.resamples[:1])
    losses = seconds = 0
    for _ in range(repetitions):
        drawn = rng.choice(most, count, replace=False)
        again = replace(known, confirmed={setting: [pool[place] for place in drawn] for setting, pool in pools.items()})
        found = concluded(ground, again)
        best, choice = found.best, found.choice
        assert best is not None
        assert choice is not None
        pool = pools[best.candidate.setting]
        truth = float(np.mean([result.curve.validation_loss[-1] for result in pool])) * found.loss_unit
        losses += choice.loss.holds(truth)
        outcome = outcome_of(ground, again, best.candidate, pool, target, behind=False)
        seconds += choice.seconds.holds(float(np.exp(outcome.seconds().mean)))
    return {"repetitions": repetitions, "loss_covered": losses, "seconds_covered": seconds}


def _candidate(search: Search, setting: object) -> Candidate:
    return next(item.candidate for item in (*search.findings.settings, *search.findings.typed) if item.candidate.setting == setting)


def errors(search: Search, repetitions: int, draws: int, factor: float) -> dict[str, Any]:
    """Say how often one setting under two names is called different, and how often planted differences in loss and seconds are found."""
    best = search.findings.best
    assert best is not None
    rows, item = int(best.outcome.budget_rows), best.outcome
    pool = Afresh(search, 4 * draws * 10).trained(best.candidate, rows)
    rng, same, lossy, slow = np.random.default_rng(1), 0, 0, 0
    for one, other in _groups(rng, len(pool), draws, repetitions):
        a, b = (_outcome_of(search, best.candidate, [pool[place] for place in places]) for places in (one, other))
        same += paired(b, a, "loss").worse or paired(a, b, "loss").worse
        lossy += paired(replace(b, losses=b.losses * factor, portions=None if b.portions is None else b.portions * factor), a, "loss").worse
        shared = rng.normal(size=len(item.seconds_per_step))
        times = [item.seconds_per_step * np.exp(0.05 * shared + 0.03 * rng.normal(size=len(shared))) for _ in range(2)]
        choice = chosen([replace(a, label="a", seconds_per_step=times[0]), replace(a, label="b", seconds_per_step=1.5 * times[1])], "time")
        slow += choice is not None and choice.label == "a" and choice.runner_up is not None and choice.runner_up.detectable
    return {
        "repetitions": repetitions,
        "draws": draws,
        "same_called_different": same,
        "planted_loss_found": lossy,
        "planted_seconds_found": slow,
    }


def _groups(rng: np.random.Generator, count: int, size: int, repetitions: int) -> Iterator[tuple[Numbers, Numbers]]:
    for _ in range(repetitions):
        places = rng.choice(count, 2 * size, replace=False)
        yield places[:size], places[size:]


def _outcome_of(search: Search, candidate: Candidate, results: Sequence[TrialResult]) -> Any:
    goal = goal_of({candidate.setting: results}, search.rule.margin, None)
    return outcome_of(search.ground, search.known, candidate, results, goal, behind=False)
