"""The page's section that says the recommendation in code: torch's at once, that of other libraries folded away."""

import html
from typing import TYPE_CHECKING

from batchlab.errors import BadInput
from batchlab.snippets.snippets import SNIPPETS, code_of

if TYPE_CHECKING:
    from batchlab.results import Verdict

TITLES = {"torch": "PyTorch", "lightning": "Lightning", "skorch": "skorch", "keras": "Keras"}


def snippets_section(verdict: "Verdict") -> str:
    """Return the code for every library; for one that cannot say the setting, why."""
    said = "The recommended setting without Batchlab; paste it below arrays <code>X</code> and <code>y</code> of your training rows."
    if verdict.settings is None:
        return "<p>No setting is recommended, so there is no code.</p>"
    shown = "".join(
        _code(verdict, library)
        if library == "torch"
        else f"<details><summary>{TITLES.get(library, library)}</summary>{_code(verdict, library)}</details>"
        for library in SNIPPETS
    )
    return f"<p>{said}</p>{shown}"


def _code(verdict: "Verdict", library: str) -> str:
    try:
        return f'<pre class="code"><code>{html.escape(code_of(verdict, library))}</code></pre>'
    except BadInput as error:
        return f"<p>{html.escape(str(error)[:1].upper() + str(error)[1:])}</p>"
