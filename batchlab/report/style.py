"""How the page looks, in both colour schemes."""

from batchlab.report.ink import OTHERS, PARTS, RAMP

DARK_RAMP = ("#a78bfa", "#8c9cf5", "#6fb0f0", "#4fc0dd", "#3fcdbd", "#5fd694", "#97dc68", "#cbdd4e", "#f7de4a")
DARK_OTHERS = ("#ff8c42", "#f08ac0", "#d9b04a", "#9fb2c2")
DARK_PARTS = ("#6ea3e6", "#f0ab52", "#b79be0", "#98a2ac")


def _named(kind: str, colours: tuple[str, ...]) -> str:
    return " ".join(f"--{kind}-{place}: {colour};" for place, colour in enumerate(colours))


LIGHT = f"""--paper: #ffffff; --ink: #1c1f23; --quiet: #6b6f76; --rule: #dcdfe3; --shade: #f5f6f8; --accent: #0a7a4b;
--accent-shade: #e7f4ee; --warning: #b3261e; --link: #0b57d0; {_named("ramp", RAMP)} {_named("other", OTHERS)} {_named("part", PARTS)}"""
DARK = f"""--paper: #15181c; --ink: #e6e8eb; --quiet: #9aa0a8; --rule: #343a42; --shade: #1d2127; --accent: #4cc38a;
--accent-shade: #14301f; --warning: #ff8a80; --link: #8ab4f8; {_named("ramp", DARK_RAMP)} {_named("other", DARK_OTHERS)}
{_named("part", DARK_PARTS)}"""

STYLE = f"""
:root {{ color-scheme: light dark; {LIGHT} }}
@media (prefers-color-scheme: dark) {{ :root {{ {DARK} }} }}
* {{ box-sizing: border-box; }}
body {{ margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, Ubuntu,
  Cantarell, "Noto Sans", "Helvetica Neue", Arial, sans-serif; text-rendering: optimizeLegibility; }}
main, header {{ max-width: 1120px; margin: 0 auto; padding: 0 28px; }}
header {{ padding-top: 44px; }}
h1 {{ font-size: 15px; font-weight: 600; color: var(--quiet); margin: 0 0 14px; overflow-wrap: anywhere; }}
h2 {{ font-size: 23px; line-height: 1.3; letter-spacing: -.01em; margin: 64px 0 6px; }}
h3 {{ font-size: 17px; margin: 0 0 2px; }}
p {{ margin: 8px 0; max-width: 76ch; }}
a {{ color: var(--link); }}
.verdict b {{ display: block; font-size: clamp(25px, 4vw, 38px); font-weight: 680; line-height: 1.18; letter-spacing: -.02em;
  margin-bottom: 14px; max-width: 30ch; text-wrap: balance; }}
.verdict {{ font-size: clamp(17px, 1.8vw, 20px); line-height: 1.5; max-width: 64ch; margin: 0 0 26px; }}
.facts, .sizes {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(170px, 1fr)); gap: 1px;
  border: 1px solid var(--rule); border-radius: 8px; overflow: hidden; margin: 18px 0; padding: 0; }}
.facts div, .sizes div {{ outline: 1px solid var(--rule); padding: 10px 14px; }}
.facts dt, .sizes dt {{ font-size: 13px; color: var(--quiet); }}
.facts dd, .sizes dd {{ margin: 0; overflow-wrap: anywhere; }}
.sizes dd {{ font-size: 25px; font-weight: 650; letter-spacing: -.01em; }}
.sizes small {{ display: block; font-size: 13px; font-weight: 400; letter-spacing: 0; color: var(--quiet); line-height: 1.4; }}
.scroll {{ overflow-x: auto; margin: 16px 0; }}
table {{ border-collapse: collapse; font-size: 14px; line-height: 1.35; font-variant-numeric: tabular-nums; width: 100%; }}
th, td {{ text-align: right; padding: 7px 9px; border-bottom: 1px solid var(--rule); vertical-align: top; }}
th {{ font-weight: 600; color: var(--quiet); font-size: 13px; vertical-align: bottom; }}
td {{ white-space: nowrap; }} td.name, .words td {{ white-space: normal; }}
th:first-child, td:first-child, .words th, .words td {{ text-align: left; }}
th:first-child, td:first-child {{ padding-left: 12px; }}
td small {{ display: block; color: var(--quiet); white-space: nowrap; font-size: 12px; }}
td.name {{ font-weight: 600; min-width: 150px; }}
.words td {{ min-width: 200px; }}
.dense td {{ min-width: 0; }} .dense td.long {{ min-width: 260px; }} .dense td.whole {{ white-space: nowrap; }}
tr.winner td {{ background: var(--accent-shade); }}
tr.winner td:first-child {{ box-shadow: inset 4px 0 var(--accent); }}
.mark {{ display: inline-block; font-size: 11.5px; font-weight: 600; border-radius: 99px; padding: 1px 8px; border: 1px solid currentColor;
  white-space: nowrap; }}
.mark.won {{ background: var(--accent); border-color: var(--accent); color: var(--paper); }}
.mark.tie {{ color: var(--accent); }} .mark.typed {{ color: var(--other-1); }} .bad {{ color: var(--warning); }}
.alert {{ border: 1px solid var(--warning); border-radius: 8px; padding: 10px 16px; margin: 18px 0; font-size: 15px; }}
.alert b {{ color: var(--warning); }} .plain {{ margin: 4px 0 0; padding-left: 20px; max-width: 100ch; overflow-wrap: anywhere; }}
.warnings {{ max-width: 100ch; padding-left: 22px; overflow-wrap: anywhere; }}
.warnings li::marker {{ color: var(--warning); content: "⚠ "; }}
section > h3 {{ margin: 36px 0 2px; }} code {{ font-size: 13px; overflow-wrap: anywhere; }}
.columns td.name {{ max-width: 300px; overflow-wrap: anywhere; }} .columns td:nth-child(2), .columns th:nth-child(2) {{ text-align: left; }}
.columns td:nth-child(2) small {{ white-space: normal; overflow-wrap: anywhere; max-width: 240px; }}
.columns td:last-child, .columns th:last-child {{ text-align: left; }}
.values {{ white-space: normal; overflow-wrap: anywhere; display: inline-block; max-width: 320px; }}
.bars {{ display: block; width: 120px; height: 26px; fill: var(--part-0); margin-bottom: 3px; }}
.remarks {{ font-size: 14px; color: var(--quiet); padding-left: 20px; max-width: 100ch; }}
figure {{ margin: 40px 0; }}
figure svg {{ display: block; width: 100%; min-width: 640px; height: auto; color: var(--ink); fill: currentColor; margin-top: 10px; }}
figcaption p {{ font-size: 16px; margin: 0; max-width: 96ch; }}
p.reading {{ color: var(--quiet); font-size: 13px; margin: 4px 0 0; max-width: 110ch; }}
.code {{ background: var(--shade); border: 1px solid var(--rule); border-radius: 8px; padding: 12px 16px; overflow-x: auto; font: 13px/1.5
  ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; tab-size: 4; }}
summary {{ cursor: pointer; color: var(--link); margin: 10px 0; }}
footer {{ color: var(--quiet); font-size: 14px; margin: 56px 0 64px; }}
@media (max-width: 600px) {{ main, header {{ padding-left: 16px; padding-right: 16px; }} header {{ padding-top: 26px; }}
  h2 {{ margin-top: 48px; }} .words thead {{ display: none; }} .words, .words tbody, .words tr, .words td {{ display: block; width: 100%; }}
  .words td {{ border: 0; padding: 3px 0; }} .words td:first-child {{ padding-left: 0; }}
  .words tr {{ border-bottom: 1px solid var(--rule); padding: 8px 0; }} .words td[data-label]::before {{ content: attr(data-label) ": ";
  color: var(--quiet); }} }}
@media print {{ figure {{ break-inside: avoid; }} }}
"""
