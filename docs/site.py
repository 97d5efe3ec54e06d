"""What the documentation's site adds to the pages of this folder: the README as its first page, CONTRIBUTING.md, a list of decisions."""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

DOCS = Path(__file__).resolve().parent
ADDED = {"README.md": "index.md", "CONTRIBUTING.md": "CONTRIBUTING.md"}
DECISIONS = "adr/index.md"
MOVED = {"](docs/adr)": f"]({DECISIONS})", "](docs/": "](", "](../CONTRIBUTING.md": "](CONTRIBUTING.md"}
REPOSITORY_ALONE = re.compile(r"\[([^\]]+)\]\(\.\./benchmarks/[^)]*\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that lie outside the folder, and the list."""
    for name, page in ADDED.items():
        files.append(File.generated(config, page, content=(DOCS.parent / name).read_text()))
    decisions = [f"- [{path.read_text().splitlines()[0].lstrip('# ')}]({path.name})" for path in sorted((DOCS / "adr").glob("*.md"))]
    files.append(File.generated(config, DECISIONS, content="\n".join(["# Decisions, and why", "", *decisions])))
    return files


def on_page_markdown(markdown: str, **given: Any) -> str:
    """Let links lead to where pages are on the site; of what is in the repository alone the words stay."""
    for before, after in MOVED.items():
        markdown = markdown.replace(before, after)
    return REPOSITORY_ALONE.sub(r"\1", markdown)
