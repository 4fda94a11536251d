"""The page /docs: what the OpenAPI description says, as a person reads it, with a command for every request."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict
from html import escape
from typing import Any

from smalti.server.limits import MEANINGS, Limits
from smalti.studio.kept import PAGE

STYLE = """
main { max-width: 60rem; }
article { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 0.9rem 1.1rem; margin: 0 0 1rem; }
h2 { display: block; margin: 1.8rem 0 0.6rem; }
h3 { margin: 0; font-size: 1rem; font-weight: 600; } h3 b { color: var(--accent); margin-right: 0.5rem; }
p { margin: 0.3rem 0; } dl { margin: 0.4rem 0; } dt { font-weight: 600; } dd { margin: 0 0 0.3rem 1.2rem; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0.6rem 0 0; padding: 0.6rem 0.8rem; border-radius: 7px; background: var(--paper); font-size: 0.83rem; }
table { border-collapse: collapse; } td, th { text-align: left; padding: 0.15rem 1.2rem 0.15rem 0; border-bottom: 1px solid var(--line); }
td:first-child { font-variant-numeric: tabular-nums; white-space: nowrap; }
a { color: var(--accent); }
"""  # noqa: E501
Operation = Mapping[str, Any]


def page(description: Mapping[str, Any], address: str, limits: Limits, with_token: bool) -> str:
    """The page as HTML, which loads nothing from anywhere.

    Args:
        description: OpenAPI's.
        address: of the server, as the reader has it.
        limits: of what is taken.
        with_token: whether requests have to bear one.
    """
    style = (PAGE / "style.css").read_text(encoding="utf-8") + STYLE
    articles = [
        _article(method, path, operation, address, with_token and path.startswith("/v1"))
        for path, methods in description["paths"].items()
        for method, operation in methods.items()
    ]
    bounds = "".join(
        f"<tr><td>{value:,.0f}</td><td>{escape(MEANINGS[name])}</td></tr>" for name, value in asdict(limits).items()
    )
    title = f"{description['info']['title']} {description['info']['version']}: requests"
    token = "<p>Requests under /v1 bear the token: <code>Authorization: Bearer TOKEN</code>.</p>" if with_token else ""
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<style>{style}</style>
<header><h1><i aria-hidden="true"></i>{escape(title)}</h1>
<p><a href="/">the studio</a> · <a href="/openapi.json">openapi.json</a></p></header>
<main>
<p>What is wrong with a request is said in one line: <code>{{"detail": ...}}</code>, with a status of 4xx.</p>{token}
{"".join(articles)}
<h2>Limits</h2>
<table>{bounds}</table>
</main>
</html>
"""


def command(method: str, path: str, operation: Operation, address: str, with_token: bool = False) -> str:
    """A request as a command of curl."""
    words = ["curl"]
    if with_token:
        words += ["-H", "Authorization: Bearer TOKEN"]
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        if kind == "application/json":
            words += ["-H", f"Content-Type: {kind}", "-d", json.dumps(_example(content.get("schema", {})))]
        else:
            words += ["--data-binary", "@photo.png" if kind == "image/*" else "@file"]
        break
    answer = operation.get("responses", {}).get("200", {}).get("content", {})
    if not {"application/json", "text/html"} & answer.keys():
        words += ["--output", f"{path.rpartition('/')[2]}{'.png' if 'image/png' in answer else ''}"]
    if method not in ("get", "post") or (method == "post" and len(words) == 1):
        words += ["-X", method.upper()]
    return shlex.join([*words, address + path])


def _example(schema: Mapping[str, Any]) -> Any:
    if "example" in schema:
        return schema["example"]
    needed = schema.get("required", ())
    return {name: _example(own) for name, own in schema.get("properties", {}).items() if name in needed} or "..."


def _article(method: str, path: str, operation: Operation, address: str, with_token: bool) -> str:
    parameters = [
        (f"?{one['name']}=", one.get("description", one["schema"].get("title", "")), one.get("required", False))
        for one in operation.get("parameters", ())
    ]
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        schema = content.get("schema", {})
        fields = {name: own.get("description", "") for name, own in schema.get("properties", {}).items()}
        parameters += [(name, text, name in schema.get("required", ())) for name, text in fields.items()]
        if not fields:
            parameters.append(("the body", "an image file" if kind == "image/*" else f"a file, {kind}", True))
    listed = "".join(
        f"<dt><code>{escape(name)}</code></dt><dd>{escape(text)}{'' if needed else '; may be left out'}</dd>"
        for name, text, needed in parameters
    )
    about = "".join(f"<p>{escape(text)}</p>" for text in (operation.get("description", ""),) if text)
    return f"""<article><h3><b>{method.upper()}</b><code>{escape(path)}</code></h3>
<p>{escape(operation.get("summary", ""))}</p>{about}
{f"<dl>{listed}</dl>" if listed else ""}
<pre>{escape(command(method, path, operation, address, with_token))}</pre></article>
"""
