"""The look of the project's HTML pages: one file each, light or dark as the reader's theme, wide or narrow."""
import html

# A browser that obeys this asks for nothing beyond the file, and runs nothing in it.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
CSS = """
:root { color-scheme: light dark; --page: #fff; --ink: #1c2024; --faint: #626973; --line: #dfe2e6; }
@media (prefers-color-scheme: dark) { :root { --page: #15181c; --ink: #e4e7ea; --faint: #9aa2ab; --line: #343a41; } }
body { margin: 0 auto; max-width: 1080px; padding: 16px; background: var(--page); color: var(--ink);
  font: 15px/1.45 system-ui, sans-serif; -webkit-text-size-adjust: 100%; overflow-wrap: break-word; }
h1 { font-size: 1.5em; margin: .2em 0; } h2 { font-size: 1.15em; margin: 1.6em 0 .3em; }
p, figcaption { color: var(--faint); margin: .2em 0 .6em; }
summary { color: var(--faint); cursor: pointer; padding: .4em 0; }
section { min-width: 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; width: 100%; }
td, th { padding: .25em .5em; text-align: right; vertical-align: top; border-top: 1px solid var(--line); }
thead th { border: 0; vertical-align: bottom; } td { white-space: nowrap; }
th { font-weight: 500; min-width: 4em; }
td:first-child, th:first-child { text-align: left; padding-left: 0; }
/* A table wider than its box scrolls in it; the labels stay, and a shade at its right says that there is more. */
.wide { overflow-x: auto; background:
  linear-gradient(to left, var(--page) 40%, transparent) right / 40px 100% no-repeat local,
  linear-gradient(to left, var(--line), transparent) right / 16px 100% no-repeat; }
.wide tr > :first-child { position: sticky; left: 0; background: var(--page); min-width: 7em;
  overflow-wrap: anywhere; }
"""


def document(title: str, css: str, *body: str) -> str:
    """A page of the HTML `body`, styled by CSS and the page's own `css`; it needs no other file."""
    return "\n".join([
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">', f"<title>{text(title)}</title>",
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        f"<style>{CSS}{css}</style>\n</head>\n<body>", *body, "</body>\n</html>\n"])


def text(value: str) -> str:
    """Any text as HTML that shows it: markup escaped, half a character (which no file holds) as "?"."""
    return html.escape(value.encode(errors="replace").decode())


def table(columns: list[str], rows: list[tuple[str, list[str]]]) -> str:
    """Rows of a label and cells, under a header; the labels' own column has no name. What is too wide scrolls."""
    cells = lambda tag, texts: "".join(f"<{tag}>{text(cell)}</{tag}>" for cell in texts)
    lines = "\n".join(f"<tr><th>{text(label)}</th>{cells('td', values)}</tr>" for label, values in rows)
    return (f'<div class="wide"><table>\n<thead><tr><th></th>{cells("th", columns)}</tr></thead>\n'
            f"<tbody>\n{lines}\n</tbody>\n</table></div>")
