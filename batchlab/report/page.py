"""The report of a verdict: one HTML document that holds all it needs, text, pictures and style."""

import html
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING

from batchlab.analysis.curves import HELD
from batchlab.experiment import Experiment
from batchlab.report import captions, cost_pictures, critical_pictures, curve_pictures, pictures, race_pictures
from batchlab.report.claims import claims
from batchlab.report.data_section import alert, data_section
from batchlab.report.dividing import dividing_section
from batchlab.report.document import footer, framed, listing, opening, section
from batchlab.report.fetching_section import fetching_section
from batchlab.report.ink import lines
from batchlab.report.page_tables import claims_table, settings_table, typed_table, yardsticks_table
from batchlab.report.periods import periods_section
from batchlab.report.snippets_section import snippets_section
from batchlab.report.wording import interval, listed, verdict_text
from batchlab.search.findings import Findings
from batchlab.search.records import verdict_of
from batchlab.snippets.quantities import number, seconds

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OF_RECORDS = "split"
"""The one figure that tells what recording took."""
FAR = 3
"""A noise scale that is so many times the critical batch size, or so small a part of it, disagrees with the frontier."""


@dataclass(frozen=True)
class Plate:
    """A picture with its heading, the sentence that says what it shows, and how it is read; None draws nothing."""

    name: str
    heading: str
    caption: str
    reading: str
    draw: "Callable[[Findings, str], Figure] | None"


def page(
    found: Findings,
    *,
    title: str,
    unit: str,
    facts: Mapping[str, str],
    tracking_seconds: Mapping[str, float],
    links: Mapping[str, str],
    experiment: Experiment | None = None,
    drawn: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Return the whole document. `unit` is the loss's; `tracking_seconds` holds what recording took, by a setting's label.

    With `experiment` there is a section on the data, and a warning near the top where something is wrong with them. What of the figures
    was `drawn_before_records` is not drawn again.
    """
    device = next((value for value in facts.values() if "cuda" in value.lower()), "cpu")
    warned, shown = ("", "") if experiment is None else (alert(experiment), data_section(experiment))
    parts = [
        opening(title, _verdict(found) + warned, facts),
        "<main>",
        section("Three batch sizes, three numbers", _sizes(found)),
        section("Every setting, best first", settings_table(found, unit)),
        section("What people type by default", typed_table(found)),
        section("Yardsticks", yardsticks_table(found, unit)),
        section("Where a loop's time goes", fetching_section(found.fetching)) if found.fetching else "",
        section("One training over several processes", dividing_section(found.steps_over_processes)) if found.processes else "",
        section("Use it elsewhere", snippets_section(verdict_of(found, ""))),
        section("Pictures", "".join(drawn.get(plate.name) or _figure(plate, found, unit) for plate in plates(found, tracking_seconds))),
        periods_section(found.periods, unit),
        section("What the lesson claims", claims_table(claims(found, device))),
        shown,
        section("How it was done", _method(found)),
        footer(links),
        "</main></body></html>",
    ]
    return "\n".join(parts)


def drawn_before_records(found: Findings, unit: str) -> dict[str, str]:
    """Return the figures, by name, that what recording takes makes no difference to."""
    return {plate.name: _figure(plate, found, unit) for plate in plates(found, {}) if plate.name != OF_RECORDS}


def plates(found: Findings, tracking_seconds: Mapping[str, float]) -> list[Plate]:
    """Return the pictures in their order, each with its caption."""
    split = partial(cost_pictures.time_split, tracking_seconds=tracking_seconds)
    noise = captions.of_noise(found)
    share = captions.of_split(found, tracking_seconds)
    frontier = None if found.frontier is None else critical_pictures.steps_against_rows
    loaders = cost_pictures.loaders if found.deliveries else None
    of, curves = captions, captions.CURVES
    return [
        Plate("race", "The race", of.of_race(found), of.RACE, race_pictures.race),
        Plate("times", "Time to the target", of.of_times(found), of.TIMES, pictures.time_to_target),
        Plate("seconds", "Loss against seconds", of.of_seconds(found), curves + of.SECONDS, curve_pictures.loss_against_seconds),
        Plate("steps", "Loss against steps", of.of_steps(found), curves, curve_pictures.loss_against_steps),
        Plate("rows", "Loss against rows", of.of_rows(found), curves, curve_pictures.loss_against_rows),
        Plate("rates", "Learning rates", of.of_rates(found), of.RATES, pictures.rate_sensitivity),
        Plate("frontier", "Steps against rows", of.of_frontier(found), of.FRONTIER if frontier else "", frontier),
        Plate("noise", "Noise scale along training", noise, of.NOISE, critical_pictures.noise_along_training),
        Plate("throughput", "Throughput", of.of_throughput(found), "", cost_pictures.throughput),
        Plate(OF_RECORDS, "Where the time goes", share, of.SPLIT, split),
        Plate("memory", "Peak memory", of.of_memory(found), of.MEMORY, cost_pictures.memory_peaks),
        Plate("loaders", "Loaders", of.of_loaders(found), "", loaders),
    ]


def _figure(plate: Plate, found: Findings, unit: str) -> str:
    return framed(plate.name, plate.heading, plate.caption, plate.reading, None if plate.draw is None else plate.draw(found, unit))


def _verdict(found: Findings) -> str:
    first, *others = verdict_text(found).splitlines()
    return f'<p class="verdict"><b>{html.escape(first)}</b> {html.escape(" ".join(others))}</p>'


def _sizes(found: Findings) -> str:
    fit, knee = found.frontier, found.throughput_knee
    if fit is None:
        critical, why = "none", "Fewer than three batch sizes reached the target in more than a step."
    elif fit.poor:
        critical, why = "none", f"Poor fit: the points lie {math.expm1(fit.misfit):.0%} off the frontier."
    elif not fit.within:
        below = fit.critical_batch.value < min(fit.batch_rows)
        critical = f"< {number(min(fit.batch_rows))}" if below else f"> {number(max(fit.batch_rows))}"
        why = "Beyond the sizes tried."
    else:
        critical, why = number(fit.critical_batch.value), f"95% CI {interval(fit.critical_batch)}. More rows than this save few steps."
    tiles = (
        ("critical batch size", critical, why),
        ("throughput knee", "none" if knee is None else number(knee), "Larger batches hardly train more rows a second."),
        ("memory ceiling", number(found.memory_ceiling), "The largest batch that one training can hold now."),
    )
    items = "".join(
        f"<div><dt>{name}</dt><dd>{html.escape(value)}<small>{html.escape(words)}</small></dd></div>" for name, value, words in tiles
    )
    said = "".join(f"<p>{html.escape(text)}</p>" for text in disagreements(found))
    return f'<dl class="sizes">{items}</dl>{said}'


def disagreements(found: Findings) -> list[str]:
    """Say where noise scales measured at the target lie far from the frontier's critical batch size and do not cover it."""
    fit = found.frontier
    if fit is None or fit.poor or not fit.within:
        return []
    size, far = fit.critical_batch.value, []
    known = [line.first for line in lines(found) if line.first.noise_scale is not None and not line.first.candidate.typed]
    for item in known:
        scale = item.noise_scale
        assert scale is not None
        near = scale.value if math.isfinite(scale.value) else scale.low
        if math.isfinite(near) and not scale.holds(size) and not size / FAR <= near <= size * FAR:
            far.append(f"{number(near) if math.isfinite(scale.value) else f'over {number(near)}'} ({item.candidate.label})")
    if not far:
        return []
    return [
        f"Noise scale and frontier disagree: the critical batch size of the frontier is {number(size)} rows, but the noise scale nearest "
        f"to the target's loss is {listed(far)}; {len(far)} of {len(known)} trainings are that far off. The frontier is measured over the "
        "whole way; the noise scale is a prediction from one moment, and grows without bound as the gradient vanishes."
    ]


def _method(found: Findings) -> str:
    raced = [entry for entry in found.race.entries.values() if entry.trials]
    said = [
        f"{len(raced)} settings raced: strategies, batch sizes, optimizers and learning rates, stacked, each going on from where it stood. "
        "All had the same time, and none saw more rows than the profile allows a training. A setting left when it was surely behind "
        "(paired over draws and validation rows, all looks together with 95% confidence) and its curve could not come to the leader's any "
        "more, or when there was no time for it.",
        f"What was left was trained again, to where it had come, with {captions.draws(found)} fresh draws each: {_drawn(found)}. Intervals "
        "of losses are over these.",
        _target(found),
        "Losses are those of the weights' running average (polynomial decay), which is what ships. Seconds to the target are steps × the "
        "seconds of a step of that setting, trained alone. Intervals are 95%, those of comparisons 97.5%, for there are two.",
        f"The search itself took {found.trials:,} trainings and {seconds(found.seconds)}.",
    ]
    return "".join(f"<p>{html.escape(text)}</p>" for text in said) + listing(found.notes)


def _drawn(found: Findings) -> str:
    """Say what a draw is."""
    if found.divisions:
        return f"a seed and one of {found.divisions} divisions of the {found.row_count:,} training rows and the validation rows"
    return "seeds; the rows' share of the uncertainty is told from portions of the validation rows"


def _target(found: Findings) -> str:
    if found.target_loss is None:
        return "There is no target: every setting diverged."
    rule = "it was given" if found.target_given else f"the lowest mean loss of a confirmed setting plus the margin of {found.margin:.1%}"
    return (
        f"The target is validation loss {found.target_loss:.4g}: {rule}. It is reached when {HELD} evaluations in a row of the mean curve "
        "over draws are at or below it."
    )
