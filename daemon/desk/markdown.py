"""
A manuscript's Markdown, read once: what a reader will see, and what a platform will make of it.

CommonMark is read by markdown-it. Dev.to's Redcarpet differs in places that matter to the rules
(it takes `[x] (address)` for a link, some code for prose, and shields code from Liquid by a pattern
of its own); those are named here, with what they are.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

# Citations are looked up by layout in the raw text; this is how they must stand there.
CITATION = re.compile(r"\[S(\d+)\]")
# Forem pages \B@[a-z0-9_-]+ in a text node, and its \B is one of ASCII.
PAGES = re.compile(r"(?<![A-Za-z0-9_])@(?=[\w-])")
_URL = re.compile(r"(?:(?:https?|ftp)://|(?<![^\W_])www\.)[^\s<>()\[\]\"'`]+", re.IGNORECASE)
# From the beginning of a run only, so that a long one is read once. npm@4.0.0 and pkg@1.x are none.
EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]++@[\w-]+(?:\.[\w-]+)*\.[^\W\d_][\w-]+")
# Redcarpet collects these wherever a line begins so, and lets the last of two win.
_DEFINITION = re.compile(r"^[ ]{0,3}\[[^\]\n]+\]:\s*<?(\S*[:/.]\S*?)>?(?:\s|$)", re.MULTILINE)
# Redcarpet lets space stand between the brackets of a link; an address has one of these signs.
_LOOSE_LINK = re.compile(r"\][ \t\n]+\(\s*<?([^)\s]*[:/][^)\s]*)")
# It lets space stand in the address as well, where CommonMark leaves all of it as text.
_LEFT_LINK = re.compile(r"\]\(\s*<?([^)\s]*[:/][^)\s]*)")
# What Forem shields from Liquid (markdown_processor/parser.rb): between two of these, the first
# that fits; the least it must have between them.
_SHIELDS = (("~~~", 0), ("```", 0), ("``", 1), ("`", 1))
_SHIELD = re.compile(r"~~~|`")
_CODE = ("code_block", "fence")
_FENCE = re.compile(r"```|~~~")
_BETWEEN_CELLS = re.compile(r"(?<!\\)\|")
_OPENS = re.compile(r"(?<![^\W_])([*_~])\1*(?=\S)")
_BACKTICKS = re.compile(r"`+|~~~+")
_FOOTNOTE = re.compile(r"^[ \t>]*\[\^[^\]\n]+\]:", re.MULTILINE)
_LANGUAGE = re.compile(r"[\w+#.,-]*")


@dataclass(frozen=True, slots=True)
class Block:
    """
    A stretch that a reader takes as one: a paragraph, a heading, a list, a table.

    Args:
        text: as shown, code included; citations kept.
        spoken: the same with code left out.
        quotable: the same with code whose straight quotation marks are none: they are code.
        citable: where a citation can become a link: neither code nor a link already.
        quoted: whether it stands in a block quote.
        numeral: the number an ordered list begins with, where that is no numeral of its place.
    """

    text: str
    spoken: str
    quotable: str
    citable: str
    heading: bool = False
    quoted: bool = False
    numeral: str | None = None

    @property
    def has_code(self) -> bool:
        """Whether some of it is code."""
        return self.text != self.spoken

    @property
    def cited(self) -> list[str]:
        """Ids of the sources cited in it."""
        return [f"S{number}" for number in CITATION.findall(self.citable)]


@dataclass(frozen=True, slots=True)
class Reading:
    """
    A text as read.

    Args:
        blocks: in order, without code blocks.
        code: contents of code blocks.
        spans: contents of code between words.
        links: every address it leads to, on CommonMark or Redcarpet.
        html: raw HTML found, as written.
        images: addresses of images, or their words where they have none.
        headings: levels, in order.
        unescaped: text outside code whose signs were written as themselves.
        apart: text outside code with a space wherever Markdown has a sign, which platforms that
            look for names and addresses later take for an end of the word.
        misread: code that Redcarpet takes for prose, and what it takes for code, a footnote or
            no table.
    """

    blocks: Sequence[Block]
    code: Sequence[str]
    spans: Sequence[str]
    links: Sequence[str]
    html: Sequence[str]
    images: Sequence[str]
    headings: Sequence[int]
    unescaped: str
    apart: str
    misread: Sequence[str]

    @property
    def spoken(self) -> str:
        """What a reader reads as prose, a line per block."""
        return "\n".join(block.spoken for block in self.blocks)

    @property
    def shown(self) -> str:
        """Everything a reader sees, code included."""
        return "\n".join([*(block.text for block in self.blocks), *self.code])


@lru_cache(maxsize=8)
def read(markdown: str) -> Reading:
    """Read Markdown; nothing in it makes this fail."""
    env: dict[str, Any] = {}
    tokens = parser().parse(markdown, env)
    every = [token for block in tokens for token in (block, *(block.children or ()))]
    blocks = list(_blocks(tokens))
    inline = [token.children or () for token in tokens if token.type == "inline"]
    unescaped = "\n".join("".join(map(_as_written, children)) for children in inline)
    apart = "\n".join("".join(map(_set_apart, children)) for children in inline)
    spoken = "\n".join(block.spoken for block in blocks)
    # As CommonMark counts them.
    lines = re.split(r"\r\n?|\n", markdown)
    raw = _without_fences(tokens, lines)
    return Reading(
        blocks=blocks,
        code=[token.content for token in tokens if token.type in _CODE],
        spans=[token.content for token in every if token.type == "code_inline"],
        links=list(dict.fromkeys([
            *_links(every, env, raw),
            *(match[1] for match in _LEFT_LINK.finditer(unescaped)),
            *addresses_in(spoken), *addresses_in(apart),
        ])),
        html=[token.content for token in every if token.type in ("html_block", "html_inline")],
        images=[str(t.attrGet("src") or t.content) for t in every if t.type == "image"],
        headings=[int(token.tag[1:]) for token in tokens if token.type == "heading_open"],
        unescaped=unescaped,
        apart=apart,
        misread=[*_misread(tokens, lines), *_FOOTNOTE.findall(raw)],
    )  # fmt: skip


def open_to_liquid(markdown: str) -> str:
    """What Dev.to leaves open to its template language: all but code in backticks."""
    kept: list[str] = []
    spent: set[str] = set()
    position = 0
    while (opening := _SHIELD.search(markdown, position)) is not None:
        start = opening.start()
        end = start + 1
        for mark, least in _SHIELDS:
            if mark in spent or not markdown.startswith(mark, start):
                continue
            close = markdown.find(mark, start + len(mark) + least)
            if close < 0:
                spent.add(mark)
                continue
            end = close + len(mark)
            break
        code = markdown[start:end]
        # It shields a tilde fence as well, and breaks it while doing so. Inside the raw block it
        # makes, only this word can end the shield.
        shielded = end > start + 1 and code[0] == "`" and "endraw" not in code
        kept += [markdown[position:start], " " if shielded else code]
        position = end
    return "".join([*kept, markdown[position:]])


def same_address(url: str) -> str:
    """An address as Markdown writes it, so that two spellings of one are one."""
    normal = str(parser().normalizeLink(url)).replace("(", "%28").replace(")", "%29")
    scheme, separator, rest = normal.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme.lower()}{separator}{host.lower()}{slash}{path}" if separator else normal


def addresses_in(text: str) -> list[str]:
    """Addresses in plain text that platforms make clickable."""
    found = _addresses(text)
    plain = unicodedata.normalize("NFKC", text)
    if plain == text:
        return found
    # A platform may make fullwidth letters plain before it looks.
    seen = {unicodedata.normalize("NFKC", address) for address in found}
    return found + [address for address in _addresses(plain) if address not in seen]


def _addresses(text: str) -> list[str]:
    found = [match[0].rstrip(".,;:!?*_~") for match in _URL.finditer(text)]
    without = _URL.sub(" ", text)
    return found + [match[0] for match in EMAIL.finditer(without)]


@cache
def parser() -> Any:
    """A CommonMark parser with tables that hides nothing from the rules."""
    from markdown_it import MarkdownIt

    # html=True so that raw HTML shows as a token of its own; escapes stay apart from text.
    made = MarkdownIt("commonmark", {"html": True}).enable("table").disable("text_join")
    # A link that this parser would not make, such as javascript:, is still to be seen here.
    made.validateLink = lambda url: True  # type: ignore[method-assign]
    return made


def _blocks(tokens: Sequence[Any]) -> Iterator[Block]:
    """Blocks of text; lines that touch belong together, as in a list without blank lines."""
    gathered: list[Block] = []
    line_end, quote, table, heading, place = -1, 0, 0, False, _Place()
    for token in tokens:
        quote += _step(token, "blockquote")
        table += _step(token, "table")
        place.follow(token)
        if token.type == "heading_open":
            heading = True
        if token.type != "inline":
            line_end = token.map[1] if token.type in _CODE and token.map else line_end
            continue
        start, end = token.map or (line_end, line_end)
        touches = table > 0 or start <= line_end
        block = Block(
            _shown(token.children, str), _shown(token.children, _no_code),
            _shown(token.children, _unmarked),
            _shown(_outside_links(token.children), _no_code),
            heading, quote > 0, place.numeral(),
        )  # fmt: skip
        apart = heading or not gathered or gathered[-1].heading or not touches
        if apart or gathered[-1].quoted != block.quoted:
            yield from _merged(gathered)
            gathered = []
        gathered.append(block)
        heading, line_end = False, end
    yield from _merged(gathered)


def _merged(blocks: Sequence[Block]) -> Iterator[Block]:
    if blocks:
        yield Block(
            "\n".join(block.text for block in blocks),
            "\n".join(block.spoken for block in blocks),
            "\n".join(block.quotable for block in blocks),
            "\n".join(block.citable for block in blocks),
            blocks[0].heading,
            blocks[0].quoted,
            next((block.numeral for block in blocks if block.numeral), None),
        )


class _Place:
    """Where in an ordered list the reader is, to tell a numeral from a number."""

    def __init__(self) -> None:
        self._counts: list[int | None] = []
        self._last = 0
        self._odd: str | None = None

    def follow(self, token: Any) -> None:
        if token.type == "ordered_list_open":
            start = int(token.attrGet("start") if token.attrGet("start") is not None else 1)
            self._odd = None if start in (0, 1, self._last + 1) else str(start)
            self._counts.append(start - 1)
        elif token.type == "bullet_list_open":
            self._counts.append(None)
        elif token.type in ("ordered_list_close", "bullet_list_close"):
            count = self._counts.pop()
            self._last = self._last if count is None else count
        elif token.type == "list_item_open" and self._counts[-1] is not None:
            self._counts[-1] += 1

    def numeral(self) -> str | None:
        """The odd numeral that begins the list just opened, told once."""
        odd, self._odd = self._odd, None
        return odd


def _step(token: Any, kind: str) -> int:
    return {f"{kind}_open": 1, f"{kind}_close": -1}.get(token.type, 0)


def _outside_links(children: Sequence[Any] | None) -> list[Any]:
    depth, out = 0, []
    for child in children or ():
        depth += _step(child, "link")
        if not depth and not child.type.startswith("link_"):
            out.append(child)
    return out


def _no_code(code: str) -> str:
    return " "


def _unmarked(code: str) -> str:
    return code.translate({ord('"'): " ", ord("'"): " "})


def _shown(children: Sequence[Any] | None, code: Callable[[str], str]) -> str:
    """Text of inline tokens as a reader sees it; a link's title is seen, too."""
    out: list[str] = []
    titles: list[str] = []
    for child in children or ():
        if child.type in ("text", "text_special", "html_inline"):
            out.append(child.content)
        elif child.type == "code_inline":
            out.append(code(child.content))
        elif child.type in ("softbreak", "hardbreak"):
            out.append(" ")
        elif child.type == "image":
            out.append(f" {child.content} ")
        if child.type in ("link_open", "image") and child.attrGet("title"):
            titles.append(str(child.attrGet("title")))
    return " ".join(["".join(out), *titles])


def _as_written(child: Any) -> str:
    return str(child.content) if child.type == "text" else " "


def _set_apart(child: Any) -> str:
    # An escape or an entity is a sign, and what it stands for.
    return f" {child.content}" if child.type == "text_special" else _as_written(child)


def _misread(tokens: Sequence[Any], lines: Sequence[str]) -> Iterator[str]:
    """
    Code of which Redcarpet, or what shields it from Liquid, makes something else.

    It knows no block by its indent in a list, nor a language of two words; it looks for the same
    signs in code as well, and shows what stands beyond a table where it sees none.
    """
    table = columns = 0
    for token in tokens:
        table += _step(token, "table")
        columns = 0 if token.type == "table_open" else columns + (token.type == "th_open")
        if token.type == "tr_open" and columns:
            row = lines[token.map[0]].strip(" \t>|")
            if len(_BETWEEN_CELLS.split(row)) > columns:
                yield row
        elif token.type == "code_block":
            yield token.content
        elif token.type == "fence":
            first, end = token.map
            closed = end - first > 1 and lines[end - 1].strip(" \t>") == "```"
            plain = token.markup == "```" and _LANGUAGE.fullmatch(token.info.strip())
            if not closed or not plain or _FENCE.search(token.content):
                yield f"{token.markup}{token.info}\n{token.content}"
        elif token.type == "inline":
            yield from _misread_inline(token, in_table=table > 0)


def _misread_inline(token: Any, *, in_table: bool) -> Iterator[str]:
    # Of what is left over, a sign that may open an emphasis ends at its like, in code as well.
    text = "".join(child.content if child.type == "text" else "x" for child in token.children)
    taken = {"`", *(match[1] for match in _OPENS.finditer(text)), *("|" if in_table else "")}
    for child in token.children:
        if child.type != "code_inline":
            yield from _BACKTICKS.findall(child.content)
        elif taken & set(child.content) or len(child.markup) > 2:
            yield child.content
    # Code from one line into the next may be cut by what the next begins with.
    yield from (line for line in token.content.split("\n") if len(_BACKTICKS.findall(line)) % 2)


def _links(every: Sequence[Any], env: dict[str, Any], raw: str) -> Iterator[str]:
    for token in every:
        if token.type == "link_open":
            yield str(token.attrGet("href") or "")
    for reference in (*env.get("references", {}).values(), *env.get("duplicate_refs", ())):
        yield str(reference["href"])
    for pattern in (_DEFINITION, _LOOSE_LINK):
        yield from (match[1] for match in pattern.finditer(raw))


def _without_fences(tokens: Sequence[Any], lines: Sequence[str]) -> str:
    """The raw text without its code blocks."""
    kept = list(lines)
    for token in tokens:
        if token.type in _CODE and token.map:
            first, end = token.map
            kept[first:end] = [""] * (end - first)
    return re.sub(r"`[^`\n]*`", " ", "\n".join(kept))
