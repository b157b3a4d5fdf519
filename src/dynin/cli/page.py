"""The gallery's page: plain HTML and CSS in one file, light and dark, nothing from elsewhere.

Enters: cards. Leaves: `index.html`. Does not know models or how media were made; everything it is given is escaped.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Literal

from dynin.media.files import replace_whole


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """One thing on a card: a file to show or play, or words."""

    kind: Literal["text", "note", "thinking", "lines", "image", "video", "audio", "strip"]
    text: str = ""
    file: str = ""
    """Relative to the page."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """One request and its result."""

    task: str
    given: tuple[Figure, ...]
    made: tuple[Figure, ...]
    strip: tuple[Figure, ...]
    """How it filled in."""
    expected: str | None
    facts: tuple[str, ...]
    strip_title: str = "how it filled in"


TITLES = {"segment": "a sentence and a video to a mask of every frame"}
"""What is no task of the table, in words."""
_WORDS = {"t": "text", "i": "picture", "v": "video", "s": "speech"}

_STYLE = """
:root { color-scheme: light dark; --paper: #fbfbfd; --card: #ffffff; --ink: #1c1e26; --faint: #6d7280; --line: #e3e5ea;
  --accent: #3056d3; }
@media (prefers-color-scheme: dark) { :root { --paper: #14161b; --card: #1d2027; --ink: #eceef3; --faint: #9aa1b0;
  --line: #31353f; --accent: #8fa8ff; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 48px 24px 96px; }
h1 { margin: 0; font-size: 40px; letter-spacing: -0.02em; }
header p { max-width: 62ch; color: var(--faint); margin: 8px 0 0; }
nav { display: flex; flex-wrap: wrap; gap: 6px; margin: 24px 0 8px; }
nav a { padding: 2px 10px; border: 1px solid var(--line); border-radius: 99px; color: inherit; text-decoration: none;
  font-size: 14px; }
nav a:hover { border-color: var(--accent); color: var(--accent); }
h2 { margin: 48px 0 12px; font-size: 20px; }
h2 small { color: var(--faint); font-weight: 400; margin-left: 8px; }
article { background: var(--card); border: 1px solid var(--line); border-radius: 14px; padding: 20px;
  margin: 0 0 16px; }
.flow { display: grid; grid-template-columns: minmax(0, 1fr) 32px minmax(0, 1fr); gap: 16px; align-items: center; }
.arrow { color: var(--faint); font-size: 24px; text-align: center; }
.side { display: flex; flex-direction: column; gap: 10px; align-items: flex-start; min-width: 0; }
.side img, .side video { width: 192px; height: 192px; border-radius: 10px; display: block; }
audio { width: 100%; max-width: 340px; }
.text { margin: 0; font-size: 18px; overflow-wrap: anywhere; }
.note, .thinking, .expected { margin: 0; color: var(--faint); font-size: 15px; overflow-wrap: anywhere; }
.thinking { border-left: 3px solid var(--line); padding-left: 10px; font-style: italic; }
details { margin-top: 16px; border-top: 1px solid var(--line); padding-top: 12px; }
summary { cursor: pointer; color: var(--faint); font-size: 14px; }
.strip { max-width: 100%; height: auto; margin-top: 10px; display: block; border-radius: 6px; }
pre { margin: 10px 0 0; font: 13px/1.7 ui-monospace, "SF Mono", Menlo, Consolas, monospace; white-space: pre-wrap;
  overflow-wrap: anywhere; }
pre i { color: var(--faint); opacity: 0.6; font-style: normal; }
footer { margin-top: 14px; color: var(--faint); font-size: 13px; display: flex; gap: 16px; flex-wrap: wrap; }
@media (max-width: 640px) { .flow { grid-template-columns: 1fr; } .arrow { transform: rotate(90deg); width: 32px; } }
"""


def write_page(path: Path, cards: Sequence[Card], summary: str) -> None:
    """Write the page, whole or not at all.

    Args:
        summary: One line about the whole run.
    """
    groups = [(task, list(group)) for task, group in groupby(cards, key=lambda card: card.task)]
    links = "".join(f'<a href="#{escape(task)}">{escape(task)}</a>' for task, _ in groups)
    sections = "".join(_section(task, group) for task, group in groups)
    page = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Dynin: any modality in, any modality out</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<header>
<h1>Any modality in, any modality out</h1>
<p>Text, pictures, video and speech are one sequence of integers. A network fills in the hidden ones, many at a time,
until nothing is hidden. Everything below was made by the models that ship with the code. {escape(summary)}.</p>
</header>
<nav>{links}</nav>
{sections}
</main>
</body>
</html>
"""
    with replace_whole(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _section(task: str, cards: Iterable[Card]) -> str:
    before, _, after = task.partition("2")
    sides = (" and ".join(_WORDS.get(letter, letter) for letter in side) for side in (before, after))
    title = f"{task}<small>{TITLES.get(task) or ' to '.join(sides)}</small>"
    return f'<section id="{escape(task)}"><h2>{title}</h2>{"".join(map(_article, cards))}</section>'


def _article(card: Card) -> str:
    given, made, strip = ("".join(map(_figure, part)) for part in (card.given, card.made, card.strip))
    expected = f'<p class="expected">expected: {escape(card.expected)}</p>' if card.expected else ""
    is_open = " open" if any(figure.kind == "strip" for figure in card.strip) else ""
    filling = f"<details{is_open}><summary>{escape(card.strip_title)}</summary>{strip}</details>" if strip else ""
    facts = "".join(f"<span>{escape(fact)}</span>" for fact in card.facts)
    return (
        f'<article><div class="flow"><div class="side">{given}</div><div class="arrow">&rarr;</div>'
        f'<div class="side">{made}{expected}</div></div>{filling}<footer>{facts}</footer></article>'
    )


def _figure(figure: Figure) -> str:
    file, text = escape(figure.file), escape(figure.text)
    match figure.kind:
        case "image":
            return f'<img src="{file}" alt="a picture">'
        case "strip":
            return f'<img class="strip" src="{file}" alt="steps of decoding">'
        case "video":
            return f'<video src="{file}" controls autoplay muted loop playsinline></video>'
        case "audio":
            return f'<audio src="{file}" controls preload="metadata"></audio>'
        case "lines":
            return f"<pre>{_dimmed(text)}</pre>"
        case kind:
            return f'<p class="{kind}">{text}</p>'


def _dimmed(text: str) -> str:
    """Escaped text with its dots in a fainter colour."""
    groups = groupby(text, key=lambda letter: letter == "\u00b7")
    return "".join(f"<i>{''.join(part)}</i>" if is_dot else "".join(part) for is_dot, part in groups)
