"""A comparison's pages and pictures, drawn by a process of its own, on another core, while the settings are recorded.

`python -m tasks.drawing` says when it is ready, reads what is `Wanted`, a line, and draws all but what records are told of; then it reads
what each took to be recorded, and answers with a line, what was `Drawn`. It reads the verdict as it is kept on disk, and imports neither
torch nor MLflow. Where it fails, or where none was begun, the same is drawn in this process.
"""

import io
import json
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import ConfigDict, ValidationError

from batchlab.experiment import Experiment
from batchlab.records import Record
from batchlab.report import figures
from batchlab.report.data_section import data_page
from batchlab.report.page import drawn_before_records, page
from batchlab.report.pictures import overview
from batchlab.rows.split import Split
from batchlab.search.space import optimizer_words, optimizers_of
from batchlab.table import PackedTable
from tasks import spool
from tasks.beside import Beside, answering
from tasks.provenance import machine
from tasks.unfinished import ComparisonRun

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from batchlab.search.findings import Findings

PAGE, DATA_PAGE, DATA, VERDICT = "verdict.html", "data.html", "plots/data.png", "plots/verdict.png"
"""Where the run has pages and pictures."""
helper = Beside("tasks.drawing")


class Wanted(Record):
    """The pages that are wanted of a verdict that is kept on disk: of which run, and what they say beside it."""

    run_id: str
    title: str
    unit: str
    facts: dict[str, str]
    links: dict[str, str]


class Drawn(Record):
    """Both pages, and pictures by the paths that they are recorded under."""

    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")
    page: str
    data_page: str
    pictures: dict[str, bytes]


class Sheet:
    """What is drawn of a verdict before its records are made."""

    def __init__(self, wanted: Wanted, found: "Findings", experiment: Experiment) -> None:
        self.wanted, self.found, self.experiment = wanted, found, experiment
        self.figures = drawn_before_records(found, wanted.unit)
        self.data_page = data_page(experiment, title=wanted.title, links=wanted.links)
        self.pictures = {
            DATA: _picture(figures.data_overview(experiment.table, experiment.split)),
            VERDICT: _picture(overview(found, wanted.unit)),
        }

    def drawn(self, recording_seconds: Mapping[str, float]) -> Drawn:
        """Return all of it, with what recording took of each setting."""
        wanted = self.wanted
        whole = page(
            self.found,
            title=wanted.title,
            unit=wanted.unit,
            facts=wanted.facts,
            tracking_seconds=recording_seconds,
            links=wanted.links,
            experiment=self.experiment,
            drawn=self.figures,
        )
        return Drawn(page=whole, data_page=self.data_page, pictures=self.pictures)


def page_links(comparison: ComparisonRun) -> dict[str, str]:
    """Return where the comparison's records are, its pages included."""
    return comparison.links | {"Report page": _page_link(comparison, PAGE), "Data page": _page_link(comparison, DATA_PAGE)}


def page_title(experiment: Experiment) -> str:
    """Return what a comparison's pages are called."""
    return f"{experiment.table.schema.target.name} of {experiment.table.schema.source}"


def wanted_of(comparison: ComparisonRun, experiment: Experiment) -> Wanted:
    """Return what the comparison's pages say beside the verdict."""
    schema, sizes = experiment.table.schema, experiment.split.sizes()
    facts = {
        "task": schema.target.task,
        "rows": f"{sizes['train']:,} training, {sizes['validation']:,} validation, {sizes['test']:,} test",
        "features": f"{len(schema.features):,}",
        "model": f"{experiment.profile.model.kind}, {experiment.loss.label}",
        "optimizers": ", ".join(optimizer_words(optimizer) for optimizer in optimizers_of(experiment.profile)),
        "device": f"{experiment.device}, {machine()['machine.cores']} cores, {machine()['machine.processor']}",
        "split": experiment.split.digest,
    }
    title, unit = page_title(experiment), experiment.loss_unit_name
    return Wanted(run_id=comparison.run_id, title=title, unit=unit, facts=facts, links=page_links(comparison))


def _page_link(comparison: ComparisonRun, name: str) -> str:
    """Return where the MLflow UI shows a page: MLflow serves artifacts of a run at their paths."""
    return f"{comparison.links['MLflow run'].partition('?')[0]}/artifacts/{name}?workflowType=machine_learning"


def _picture(figure: "Figure") -> bytes:
    """Return a figure as a file."""
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def begin() -> None:
    """Start the process that is to draw the next comparison's pages; on one core it would only take this one's time."""
    import joblib

    if joblib.cpu_count() > 1:
        helper.begin()


def want(wanted: Wanted) -> None:
    """Let the process draw what it can before records are made; one that still draws for an attempt that failed is ended."""
    if helper.used:
        helper.end()
    begin()
    helper.told(wanted.model_dump_json())


def drawn(wanted: Wanted, found: "Findings", experiment: Experiment, recording_seconds: Mapping[str, float]) -> Drawn:
    """Return what was wanted, by the process that was begun for it if there is one."""
    said = helper.answer() if helper.told(json.dumps(recording_seconds)) else ""
    try:
        answer = Drawn.model_validate_json(said) if said else None
    except ValidationError:
        answer = None
    helper.end()
    return answer or Sheet(wanted, found, experiment).drawn(recording_seconds)


def main() -> None:
    """Import what draws while nothing is wanted yet; then draw what is."""
    answer = answering()
    import matplotlib.figure  # noqa: F401

    answer("ready")
    if line := sys.stdin.readline():
        wanted = Wanted.model_validate_json(line)
        told = spool.of(wanted.run_id)
        found, _ = spool.evidence_of(told)
        compared = told.comparison
        sheet = Sheet(wanted, found, Experiment(compared.profile, PackedTable.open(compared.table), Split.open(compared.split)))
        if line := sys.stdin.readline():
            answer(sheet.drawn(json.loads(line)).model_dump_json())
    os._exit(0)  # nothing is to be taken down


if __name__ == "__main__":
    main()
