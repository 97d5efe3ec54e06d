"""The report of a verdict: one HTML document that holds all it needs, text, pictures and style."""

import html
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from batchlab.analysis.curves import HELD
from batchlab.report import captions, cost_pictures, critical_pictures, curve_pictures, pictures
from batchlab.report.claims import claims
from batchlab.report.ink import lines
from batchlab.report.page_tables import claims_table, settings_table, typed_table
from batchlab.report.style import STYLE
from batchlab.report.svg import inline
from batchlab.report.wording import interval, listed, number, seconds, verdict_text
from batchlab.search.findings import Findings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
) -> str:
    """Return the whole document. `unit` is the loss's; `tracking_seconds` holds what recording took, by a setting's label."""
    device = next((value for value in facts.values() if "cuda" in value.lower()), "cpu")
    parts = [
        _head(found, title, facts),
        "<main>",
        _section("Three batch sizes, three numbers", _sizes(found)),
        _section("Every setting, best first", settings_table(found, unit)),
        _section("What people type by default", typed_table(found)),
        _section("Pictures", "".join(_figure(plate, found, unit) for plate in plates(found, tracking_seconds))),
        _section("What the lesson claims", claims_table(claims(found, device))),
        _section("How it was done", _method(found)),
        _footer(links),
        "</main></body></html>",
    ]
    return "\n".join(parts)


def plates(found: Findings, tracking_seconds: Mapping[str, float]) -> list[Plate]:
    """Return the pictures in their order, each with its caption."""
    split = partial(cost_pictures.time_split, tracking_seconds=tracking_seconds)
    noise = captions.of_noise(found)
    share = captions.of_split(found, tracking_seconds)
    frontier = None if found.frontier is None else critical_pictures.steps_against_rows
    loaders = cost_pictures.loaders if found.deliveries else None
    of, curves = captions, captions.CURVES
    return [
        Plate("times", "Time to the target", of.of_times(found), of.TIMES, pictures.time_to_target),
        Plate("seconds", "Loss against seconds", of.of_seconds(found), curves + of.SECONDS, curve_pictures.loss_against_seconds),
        Plate("steps", "Loss against steps", of.of_steps(found), curves, curve_pictures.loss_against_steps),
        Plate("rows", "Loss against rows", of.of_rows(found), curves, curve_pictures.loss_against_rows),
        Plate("rates", "Learning rates", of.of_rates(found), of.RATES, pictures.rate_sensitivity),
        Plate("frontier", "Steps against rows", of.of_frontier(found), of.FRONTIER if frontier else "", frontier),
        Plate("noise", "Noise scale along training", noise, of.NOISE, critical_pictures.noise_along_training),
        Plate("throughput", "Throughput", of.of_throughput(found), "", cost_pictures.throughput),
        Plate("split", "Where the time goes", share, of.SPLIT, split),
        Plate("memory", "Peak memory", of.of_memory(found), of.MEMORY, cost_pictures.memory_peaks),
        Plate("loaders", "Loaders", of.of_loaders(found), "", loaders),
    ]


def _figure(plate: Plate, found: Findings, unit: str) -> str:
    drawn = "" if plate.draw is None else inline(plate.draw(found, unit), plate.name, f"{plate.heading}. {plate.caption}")
    picture = f'<div class="scroll">{drawn}</div>' if drawn else ""
    said = f"<figcaption><h3>{html.escape(plate.heading)}</h3><p>{html.escape(plate.caption)}</p></figcaption>"
    reading = f'<p class="reading">{html.escape(plate.reading)}</p>' if plate.reading else ""
    return f'<figure id="{plate.name}">{said}{picture}{reading}</figure>\n'


def _head(found: Findings, title: str, facts: Mapping[str, str]) -> str:
    name = html.escape(title)
    first, *others = verdict_text(found).splitlines()
    verdict = f'<p class="verdict"><b>{html.escape(first)}</b> {html.escape(" ".join(others))}</p>'
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{name}</title><style>{STYLE}</style></head>\n<body><header><h1>{name}</h1>{verdict}{_facts(facts)}</header>"
    )


def _facts(facts: Mapping[str, str]) -> str:
    items = "".join(f"<div><dt>{html.escape(label)}</dt><dd>{html.escape(value)}</dd></div>" for label, value in facts.items())
    return f'<dl class="facts">{items}</dl>' if facts else ""


def _section(heading: str, body: str) -> str:
    return f"<section><h2>{html.escape(heading)}</h2>{body}</section>"


def _sizes(found: Findings) -> str:
    fit, knee = found.frontier, found.throughput_knee
    if fit is None:
        critical, why = "none", "Fewer than three batch sizes reached the target with every seed in more than a step."
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
    if fit is None or fit.poor:
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
    seeds = captions.seeds(found)
    rates = max((len(item.rates) for item in found.settings), default=0)
    target = "There is no target: no setting lowered the validation loss."
    if found.target_loss is not None:
        rule = (
            f"it leaves {found.share_left:.0%} of the best trial's way to its lowest level from {found.start_loss:.4g}, the loss of always "
            "predicting the mean or the first loss, whichever is lower"
        )
        target = (
            f"The target is validation loss {found.target_loss:.4g}: {'it was given' if found.target_given else rule}. It is reached when "
            f"{HELD} evaluations in a row are at or below it."
        )
    said = [
        f"Every training sees at most {found.budget_rows:,} rows, drawn from {found.row_count:,} training rows. Up to {rates} learning "
        f"rates were tried for each group of settings that train alike; the best was trained again with {seeds} fresh seeds.",
        target,
        "Seconds to the target are steps × the seconds of a step of that setting, trained alone. Intervals are 95%, those of comparisons "
        "97.5%, for there are two.",
        f"The search itself took {found.trials:,} trainings and {seconds(found.seconds)}.",
    ]
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in found.notes)
    return "".join(f"<p>{html.escape(text)}</p>" for text in said) + (f'<ul class="remarks">{notes}</ul>' if notes else "")


def _footer(links: Mapping[str, str]) -> str:
    items = [f'<a href="{html.escape(address, quote=True)}">{html.escape(text)}</a>' for text, address in links.items()]
    return f"<footer>{' · '.join(items)}</footer>"
