"""Self-contained HTML template: style and pictures are inside the file."""

import base64
import html
import io
from collections.abc import Container, Iterable, Sequence

from PIL import Image

from smalti.reports.charts import INK

STYLE = f"""
  body {{ font: 16px/1.5 system-ui, sans-serif; color: {INK}; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }}
  h1 {{ font-size: 1.6rem; margin-bottom: 0; }}  h2 {{ font-size: 1.1rem; margin: 2.2rem 0 0.4rem; }}
  p {{ margin: 0.3rem 0 0.8rem; max-width: 46rem; }}  ul {{ padding-left: 1.2rem; max-width: 46rem; }}
  img {{ max-width: 100%; image-rendering: pixelated; }}
  svg {{ max-width: 100%; height: auto; }}
  table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
  .row {{ display: flex; flex-wrap: wrap; gap: 1rem; }}
  .wide {{ overflow-x: auto; }}
  .wide th:first-child, .wide td:first-child {{ position: sticky; left: 0; background: white; min-width: 5rem; }}
  .sheet figure {{ width: max-content; }}  .sheet figcaption {{ position: sticky; left: 0; margin-bottom: 0.6rem; }}
  .sheet img {{ max-width: none; display: block; }}
  figure {{ margin: 0; }}  figcaption {{ font-size: 0.85rem; max-width: 17rem; }}
  th {{ text-align: left; font-weight: 600; font-size: 0.85rem; vertical-align: bottom; }}
  td, th {{ padding: 0.1rem 1.2rem 0.1rem 0; border-bottom: 1px solid #ddd; }}
  .stack figure {{ display: flex; flex-direction: column-reverse; align-items: start; margin-bottom: 0.7rem; }}
  .stack {{ overflow-x: auto; }}  .stack figcaption {{ max-width: none; position: sticky; left: 0; }}
  .stack > figure > img {{ min-width: 40rem; }}
  .flag {{ color: #b91c1c; }}
  .claims td, .claims th {{ vertical-align: top; min-width: 11rem; max-width: 17rem; padding-top: 0.3rem; }}
  .claims td {{ font-size: 0.92rem; line-height: 1.35; }}
  .claims th:first-child, .claims td:first-child {{ min-width: 5.5rem; max-width: 6rem; font-weight: 600; }}
  .measured {{ color: #9a3412; font-size: 0.85rem; display: block; margin: 0.15rem 0 0.3rem; }}
"""


def document(title: str, body: str) -> str:
    """A whole page; `title` is text, `body` is HTML."""
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<style>{STYLE}</style>
{body}
</html>
"""


def escape(text: str) -> str:
    """Text as HTML."""
    return html.escape(text)


def picture(image: Image.Image, alt: str = "") -> str:
    """A picture as a data URI."""
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return f'<img src="data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}" alt="{escape(alt)}">'


def captioned_picture(image: Image.Image, caption: str) -> str:
    """A figure with its caption."""
    return f"<figure>{picture(image, caption)}<figcaption>{escape(caption)}</figcaption></figure>"


def stack(parts: Iterable[str]) -> str:
    """Wide figures below each other, each under its caption."""
    return f'<div class="stack">{"".join(parts)}</div>'


def row(parts: Iterable[str]) -> str:
    """Pieces of HTML in a wrapping row."""
    return f'<div class="row">{"".join(parts)}</div>'


def table(header: Sequence[str], rows: Iterable[Sequence[str]], bold: Container[tuple[int, int]] = frozenset()) -> str:
    """A table of text; the cells at the (row, column) of `bold` stand out."""
    whole = [[escape(cell).replace(" ± ", "&nbsp;±&nbsp;") for cell in cells] for cells in rows]
    shown = [
        [f"<b>{cell}</b>" if (row, column) in bold else cell for column, cell in enumerate(cells)]
        for row, cells in enumerate(whole)
    ]
    return table_of_html([*map(escape, header)], shown)


def table_of_html(header: Sequence[str], rows: Iterable[Sequence[str]], style: str = "") -> str:
    """A table whose cells are HTML; `style` is a class of the template."""
    head = "".join(f"<th>{cell}</th>" for cell in header)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>" for cells in rows)
    classes = f"wide {style}".rstrip()
    return f'<div class="{classes}"><table>{f"<tr>{head}</tr>" if header else ""}{body}</table></div>'


def sentences(lines: Iterable[str]) -> str:
    """Sentences below each other, as text."""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<ul>{items}</ul>" if items else ""


def paragraph(*parts: str) -> str:
    """Sentences, as text; nothing where there are none."""
    text = " ".join(filter(None, parts))
    return f"<p>{escape(text)}</p>" if text else ""
