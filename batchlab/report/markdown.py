"""The report of a comparison as Markdown, for Prefect's artifact page and MLflow's run description."""

from collections.abc import Mapping, Sequence

from batchlab.report.tables import remarks, table
from batchlab.results import Comparison


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def report(title: str, result: Comparison, links: Mapping[str, str]) -> str:
    """Return the report: the verdict, the table, what people type by default, remarks, and links by their text."""
    facts, verdict = result.comparison, result.verdict
    parts = [
        f"# {title}",
        "\n".join(f"> {line}  " for line in verdict.text.splitlines()),
        f"Task **{facts.task}** on **{facts.device}**; {facts.rows.train:,} training, {facts.rows.validation:,} validation and "
        f"{facts.rows.test:,} test rows (split `{facts.split_digest}`).",
        markdown_table(*table(facts.task, result.strategies)),
        "\n".join(f"- {remark}" for remark in [*remarks(result.strategies), *verdict.notes]),
        *(("What people type by default:", markdown_table(*table(facts.task, result.typed))) if result.typed else ()),
        " · ".join(f"[{text}]({address})" for text, address in links.items()),
    ]
    return "\n\n".join(part for part in parts if part)
