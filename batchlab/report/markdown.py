"""The report of a comparison as Markdown, for Prefect's artifact page and MLflow's run description."""

from collections.abc import Sequence

from batchlab.report.tables import remarks, table
from batchlab.results import Comparison


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def report(title: str, result: Comparison, links: dict[str, str]) -> str:
    """Return the report: what was compared, the table, the remarks, and links by their text."""
    facts = result.comparison
    parts = [
        f"# {title}",
        f"Task **{facts.task}** on **{facts.device}**; {facts.rows.train:,} training, {facts.rows.validation:,} validation and "
        f"{facts.rows.test:,} test rows (split `{facts.split_digest}`).",
        markdown_table(*table(facts.task, result.strategies)),
        *(f"- {remark}" for remark in remarks(result.strategies)),
        " · ".join(f"[{text}]({address})" for text, address in links.items()),
    ]
    return "\n\n".join(part for part in parts if part)
