"""The pages' HTML. Everything that comes from outside passes through :func:`_text`."""

from __future__ import annotations

import html
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from lading.model import oci
from lading_registry_server.manifests import Stored
from lading_registry_server.repositories import Repository, Tag

_text = html.escape


@dataclass(frozen=True, slots=True)
class Summary:
    """What a row of a table says of a tag; ``size`` in bytes, -1 for an index."""

    digest: str = ""
    size: int = -1
    platforms: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """Which page of a long list is shown; both count from 1."""

    number: int
    last: int


class Page:
    """Makes pages for one visitor."""

    def __init__(self, user: str, has_users: bool) -> None:
        self._user, self._has_users = user, has_users

    def _whole(self, title: str, main: str, text: str = "") -> bytes:
        who = ""
        if self._has_users:
            who = (
                f'<span class="who">{_text(self._user)}</span>'
                if self._user
                else '<a href="/login">Log in</a>'
            )
        return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{_text(title)}</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/static/style.css">
<script src="/static/page.js" defer></script>
</head>
<body>
<a class="skip" href="#main">Skip to the content</a>
<header>
<a class="home" href="/">Image registry</a>
<form role="search" action="/" method="get">
<label for="q" class="unseen">Search images</label>
<input id="q" name="q" type="search" placeholder="Search images" value="{_text(text)}">
<button>Search</button>
</form>
{who}
</header>
<main id="main">
{main}
</main>
<footer>Lading registry: OCI distribution and Registry v1</footer>
<p id="said" class="unseen" role="status" aria-live="polite"></p>
</body>
</html>
""".encode()

    def missing(self) -> bytes:
        """404."""
        return self._whole("Not found", "<h1>Not found</h1><p>There is no such page or image.</p>")

    def refused(self) -> bytes:
        """401 and 403."""
        return self._whole("Refused", "<h1>Refused</h1><p>Log in as somebody who may do that.</p>")

    def home(self, text: str, rows: Sequence[Repository], total: int, part: Part) -> bytes:
        """The first page, or what a search has found."""
        if text:
            title = f"{total} found for “{text}”"
        else:
            title = f"{total} {'repository' if total == 1 else 'repositories'}"
        body = f"<h1>{_text(title)}</h1>"
        if rows:
            body += f'<ul class="cards">{"".join(map(_card, rows))}</ul>{_parts(text, part)}'
        elif total:
            body += f"<p>There is no such page.</p>{_parts(text, part)}"
        elif text:
            body += "<p>Nothing has all of these words in its name or description.</p>"
        else:
            body += "<p>Nothing here yet. Push an image, and it will show up.</p>"
        return self._whole(title if text else "Images", body, text)

    def repository(
        self,
        repository: Repository,
        host: str,
        rows: Sequence[tuple[Tag, Summary]],
        *,
        starred: bool,
        can_change: bool,
    ) -> bytes:
        """A repository and its tags."""
        name = repository.name
        private = ' <span class="badge">private</span>' if repository.private else ""
        body = f"<h1>{_text(name)}{private}</h1>"
        if repository.description:
            body += f'<p class="lead">{_text(repository.description)}</p>'
        body += self._star(repository, starred)
        preferred = next(
            (t.name for t, _ in rows if t.name == "latest"), rows[0][0].name if rows else ""
        )
        if preferred:
            body += _command(f"lading pull {host}/{name}:{preferred}")
            lines = "".join(_tag_row(name, tag, summary) for tag, summary in rows)
            body += f"""<h2 id="tags">Tags</h2>
<div class="scroll"><table aria-labelledby="tags">
<thead><tr><th scope="col">Tag</th><th scope="col">Digest</th><th scope="col">Platforms</th>
<th scope="col" class="number">Size</th><th scope="col">Pushed</th></tr></thead>
<tbody>{lines}</tbody></table></div>"""
        else:
            body += "<p>No tags.</p>"
        if can_change:
            body += _settings(repository)
        return self._whole(name, body)

    def _star(self, repository: Repository, starred: bool) -> str:
        stars = repository.stars
        count = f"{stars} {'star' if stars == 1 else 'stars'}"
        if not self._user:
            return f'<p class="stars">★ {count}</p>'
        value, label = ("0", "Take the star back") if starred else ("1", "Give a star")
        return (
            f'<form method="post" action="/r/{quote(repository.name)}" class="stars">★ {count} '
            f'<button name="star" value="{value}">{label}</button></form>'
        )

    def index(
        self,
        name: str,
        reference: str,
        tag: str,
        stored: Stored,
        rows: Sequence[tuple[str, str]],
    ) -> bytes:
        """An image for many platforms."""
        lines = "".join(
            f'<tr><td>{_text(platform or "other")}</td><td><a href="{_link(name, digest=digest)}">'
            f"<code>{_text(_short(digest))}</code></a></td></tr>"
            for platform, digest in rows
        )
        body = f"""{_head(name, tag, stored)}{_command(f"lading pull {reference}")}
<h2 id="platforms">Platforms</h2>
<table aria-labelledby="platforms"><thead><tr><th scope="col">Platform</th>
<th scope="col">Image</th></tr></thead><tbody>{lines}</tbody></table>"""
        return self._whole(reference, body)

    def image(
        self,
        name: str,
        reference: str,
        tag: str,
        stored: Stored,
        manifest: oci.Manifest,
        config: oci.ImageConfig | None,
    ) -> bytes:
        """One image: what it runs, how it was made, its layers."""
        body = _head(name, tag, stored) + _command(f"lading pull {reference}")
        if config is not None:
            body += _facts(config, manifest)
        body += _history(manifest, config)
        return self._whole(reference, body)


def _parts(text: str, part: Part) -> str:
    """Ways to the other pages of a list."""
    if part.last == 1:
        return ""
    ways = [(part.number - 1, "Previous", "prev"), (part.number + 1, "Next", "next")]
    links = ""
    for number, label, relation in ways:
        if 1 <= number <= part.last:
            query = _text(urlencode({"q": text, "page": number} if text else {"page": number}))
            links += f'<a href="/?{query}" rel="{relation}">{label}</a> '
    return f'<nav class="parts" aria-label="Pages">{links}Page {part.number} of {part.last}</nav>'


def _card(row: Repository) -> str:
    private = ' <span class="badge">private</span>' if row.private else ""
    description = f"<p>{_text(row.description)}</p>" if row.description else ""
    stars = f"★ {row.stars} · " if row.stars else ""
    return (
        f'<li><h2><a href="/r/{quote(row.name)}">{_text(row.name)}</a>{private}</h2>{description}'
        f'<p class="quiet">{stars}pushed {_time(row.updated)}</p></li>'
    )


def _tag_row(name: str, tag: Tag, summary: Summary) -> str:
    platforms = "".join(f'<span class="badge">{_text(p)}</span> ' for p in summary.platforms)
    shown = f'<a href="{_link(name, tag=tag.name)}">{_text(tag.name)}</a>'
    if not summary.digest:
        shown = f"{_text(tag.name)} (incomplete)"
    return (
        f"<tr><th scope='row'>{shown}</th><td><code>{_text(_short(summary.digest))}</code></td>"
        f'<td>{platforms}</td><td class="number">{_size(summary.size)}</td>'
        f"<td>{_time(tag.updated)}</td></tr>"
    )


def _settings(repository: Repository) -> str:
    checked = " checked" if repository.private else ""
    return f"""<details><summary>Settings</summary>
<form method="post" action="/r/{quote(repository.name)}" class="settings">
<label for="description">Description</label>
<textarea id="description" name="description" rows="3">{_text(repository.description)}</textarea>
<label><input type="checkbox" name="private" value="1"{checked}> Private: only people with a grant
see it</label>
<button>Save</button></form></details>"""


def _head(name: str, tag: str, stored: Stored) -> str:
    colon = f":{_text(tag)}" if tag else ""
    return (
        f'<nav aria-label="Breadcrumb"><a href="/r/{quote(name)}">{_text(name)}</a></nav>'
        f"<h1>{_text(name)}{colon}</h1>"
        f'<p class="quiet">Digest <code>{_text(stored.digest)}</code></p>'
    )


def _command(text: str) -> str:
    return (
        f'<p class="command"><code>{_text(text)}</code>'
        f'<button type="button" data-copy="{_text(text)}" hidden>Copy</button></p>'
    )


def _facts(config: oci.ImageConfig, manifest: oci.Manifest) -> str:
    run = config.config or {}
    facts: list[tuple[str, Iterable[str]]] = [
        ("Platform", [f"{config.os}/{config.architecture}"]),
        ("Created", [config.created or ""]),
        ("Author", [config.author]),
        ("Size", [_size(sum(layer.size for layer in manifest.layers)) + " compressed"]),
        ("Entrypoint", [_words(run.get("Entrypoint"))]),
        ("Command", [_words(run.get("Cmd"))]),
        ("Working directory", [str(run.get("WorkingDir") or "")]),
        ("User", [str(run.get("User") or "")]),
        ("Ports", sorted(run.get("ExposedPorts") or ())),
        ("Volumes", sorted(run.get("Volumes") or ())),
        ("Environment", [str(line) for line in run.get("Env") or ()]),
        ("Labels", [f"{k}={v}" for k, v in sorted((run.get("Labels") or {}).items())]),
    ]
    rows = ""
    for label, values in facts:
        shown = "<br>".join(_text(value) for value in values if value)
        if shown:
            rows += f"<div><dt>{label}</dt><dd>{shown}</dd></div>"
    return f'<dl class="facts">{rows}</dl>'


def _history(manifest: oci.Manifest, config: oci.ImageConfig | None) -> str:
    layers = list(manifest.layers)
    lines = list(config.history) if config is not None else []
    if sum(not line.empty_layer for line in lines) != len(layers):
        lines = [oci.History() for _ in layers]
    rows = ""
    for line in lines:
        layer = None if line.empty_layer else layers.pop(0)
        size = _size(layer.size) if layer else ""
        digest = f"<code>{_text(_short(layer.digest))}</code>" if layer else ""
        said = line.created_by or line.comment or "unknown"
        rows += (
            f'<tr><td><code class="step">{_text(said)}</code></td><td>{digest}</td>'
            f'<td class="number">{size}</td></tr>'
        )
    return f"""<h2 id="layers">Layers and history</h2>
<div class="scroll"><table aria-labelledby="layers"><thead><tr><th scope="col">Step</th>
<th scope="col">Layer</th><th scope="col" class="number">Size</th></tr></thead>
<tbody>{rows}</tbody></table></div>"""


def _link(name: str, **query: str) -> str:
    return _text(f"/r/{quote(name)}?{urlencode(query)}")


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]


def _words(words: Any) -> str:
    return shlex.join(map(str, words)) if isinstance(words, list) else str(words or "")


def _size(size: int) -> str:
    if size < 0:
        return ""
    value, unit = float(size), "B"
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.3g} {unit}"


def _time(text: str) -> str:
    try:
        when = datetime.fromisoformat(text[:19] + "Z")
    except ValueError:
        return _text(text)
    return f'<time datetime="{when:%Y-%m-%dT%H:%M:%SZ}">{when:%Y-%m-%d %H:%M}</time>'


def form(body: bytes) -> dict[str, str]:
    """The fields of a submitted form."""
    return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
