"""The report as one self-contained HTML page: its Markdown rendered, its pictures inside, nothing fetched from anywhere."""

import base64
from collections.abc import Mapping
from html import escape

from markdown_it import MarkdownIt

_STYLE = """
:root { color-scheme: light dark; --ink: #1d1f22; --page: #ffffff; --line: #d5d8dc; --stripe: #f4f5f7; --soft: #5b6169; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e6e9; --page: #17191c; --line: #3a3f45; --stripe: #202327; --soft: #a0a7af; }
}
body { margin: 0 auto; max-width: 62rem; padding: 1.5rem 1rem 4rem; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, sans-serif; }
h1, h2 { line-height: 1.2; }
h2 { margin-top: 2.5rem; border-top: 1px solid var(--line); padding-top: 1.2rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .87rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
th { color: var(--soft); font-weight: 600; }
tbody tr:nth-child(even) { background: var(--stripe); }
img { display: block; max-width: 100%; height: auto; background: #fff; border-radius: 6px; }
"""


def render_page(markdown: str, pictures: Mapping[str, bytes]) -> str:
    """Return a page of the Markdown with its PNGs as data URIs; raw HTML in the Markdown is shown as text, never obeyed."""
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
    for name, png in pictures.items():
        data = base64.b64encode(png).decode("ascii")
        body = body.replace(f'src="{escape(name)}"', f'src="data:image/png;base64,{data}"')
    body = body.replace("<table>", '<div class="scroll"><table>').replace("</table>", "</table></div>")
    title = escape(next((line.removeprefix("# ") for line in markdown.splitlines() if line.startswith("# ")), "Report"))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n{body}</main>\n</body>\n</html>\n"
    )
