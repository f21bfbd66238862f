"""
The house rules: what an article must keep before it may appear.

Each rule is a small function from a manuscript and its context to findings that a model can act
on. What has one right fix is fixed first, by `mended`. A finding that `refuses` keeps the article
from appearing; the others are only sent back to the writer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import SequenceMatcher
from functools import cache
from typing import Any

from daemon.desk.evidence import Claim, Evidence, alike, contains, numbers
from daemon.sources.text import is_hidden, keywords, shortened, words

TITLE_MAX = 128
DESCRIPTION_MAX = 300
BODY_BYTES_MAX = 800 * 1024
TAGS_MAX = 4
TAG_MAX = 30
# Fewer words than this are no article, whatever the operator asked for.
WORDS_FLOOR = 60
# A longer run of a source's words is copying, not quoting.
FAIR_QUOTATION_WORDS = 40
# Shorter ones are names and set phrases.
QUOTATION_WORDS_MIN = 6
PROMPT_RUN_WORDS = 12
REPEAT_SIMILARITY = 0.9

CITATION = re.compile(r"\[S(\d+)\]")
_ODD_CITATION = re.compile(r"\[\^?[Ss](\d+)\]|\(S(\d+)\)")
_CITATION_GROUP = re.compile(r"\[\s*(S\d+(?:\s*[,;&]\s*S\d+)+)\s*\]", re.IGNORECASE)
_QUOTATION = re.compile(r"“([^”\n]+)”|\"([^\"\n]+)\"|„([^“\n]+)“|«([^»\n]+)»")
_LIST_NUMERAL = re.compile(r"^\s*\d{1,3}[.)]\s", re.MULTILINE)
_HEADING = re.compile(r"(#{1,6})[ \t]+(.*?)(?:[ \t]+#+)*[ \t]*")
_MENTION = re.compile(r"\B@+(?=[A-Za-z0-9_-])")
_URL = re.compile(r"\b(?:https?://|www\.)[^\s<>()\[\]\"'`]+", re.IGNORECASE)
_SECRET = re.compile(
    r"\b(?:sk-[A-Za-z0-9_-]{16,}|gh[pousr]_[A-Za-z0-9]{30,}|AKIA[0-9A-Z]{16}|xox[abpr]-[\w-]{10,}"
    r"|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{5,})|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)
_WORN_OUT = (
    "in today's fast-paced world", "in today's digital age", "in the ever-evolving",
    "ever-changing landscape", "game-changer", "game changer", "unlock the power",
    "unleash the power", "delve into", "dive deep into", "let's dive in", "buckle up",
    "it's important to note that", "it is important to note that", "in conclusion,",
    "a testament to", "rich tapestry", "navigate the complexities", "look no further",
    "harness the power", "revolutionize the way", "at the end of the day",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Manuscript:
    """An article as the desk sees it: the body has citations like [S2] and no title."""

    title: str
    description: str
    tags: tuple[str, ...]
    markdown: str


@dataclass(frozen=True, slots=True)
class Context:
    """
    What a manuscript is held against.

    Args:
        claims: verified ones only.
        links: addresses it may link to: pages read for this run, or a digest's entries.
        prompts: standing instructions, whose text must not appear.
        secrets: values that must never appear.
        cites: whether it rests on citations; a digest does not.
    """

    evidence: Mapping[str, Evidence]
    claims: Sequence[Claim]
    links: frozenset[str]
    earlier_titles: Sequence[str] = ()
    prompts: Sequence[str] = ()
    secrets: Sequence[str] = field(default=(), repr=False)
    words_min: int = WORDS_FLOOR
    words_max: int = 100_000
    cites: bool = True


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule that is not kept, where, and what to do about it."""

    rule: str
    message: str
    refuses: bool = True

    def __str__(self) -> str:
        return f"{self.rule}: {self.message}"


Rule = Callable[[Manuscript, Context], Iterator[Finding]]


def inspect(manuscript: Manuscript, context: Context) -> list[Finding]:
    """Every finding of every rule."""
    return [finding for rule in RULES for finding in rule(manuscript, context)]


def mended(manuscript: Manuscript) -> Manuscript:
    """The manuscript with everything fixed that has one right fix."""
    markdown = _trimmed(_without_hidden(manuscript.markdown))
    markdown = _CITATION_GROUP.sub(_separate_citations, markdown)
    markdown = _ODD_CITATION.sub(lambda found: f"[S{found[1] or found[2]}]", markdown)
    title = without_mentions(" ".join(_without_hidden(manuscript.title).split()))
    markdown = _level_headings(markdown, title)
    return replace(
        manuscript,
        title=title,
        description=shortened(
            without_mentions(" ".join(_without_hidden(manuscript.description).split())),
            DESCRIPTION_MAX,
        ),
        tags=plain_tags(manuscript.tags),
        markdown=markdown,
    )


def citations_resolve(manuscript: Manuscript, context: Context) -> Iterator[Finding]:
    """Every citation names evidence that a verified claim rests on."""
    if not context.cites:
        return
    cited = {f"S{number}" for number in CITATION.findall(manuscript.markdown)}
    grounded = {claim.source for claim in context.claims}
    for source in sorted(cited - grounded):
        yield Finding("citations", f"[{source}] is no source of a verified claim; cite another")
    if not cited:
        yield Finding("citations", "nothing is cited; put [S1] and the like after each fact")


def numbers_are_quoted(manuscript: Manuscript, context: Context) -> Iterator[Finding]:
    """Every number stands in a verified quote of a source cited in the same paragraph."""
    if not context.cites:
        return
    quoted: dict[str, set[str]] = {}
    for claim in context.claims:
        quoted.setdefault(claim.source, set()).update(numbers(claim.quote))
    anywhere = frozenset().union(*quoted.values())
    for paragraph in _paragraphs(manuscript.markdown):
        is_heading = paragraph.startswith("#")
        cited = [f"S{number}" for number in CITATION.findall(paragraph)]
        known = anywhere if is_heading else frozenset().union(*(quoted.get(s, ()) for s in cited))
        shown = numbers(_without_numerals(CITATION.sub("", paragraph)))
        for number in sorted(shown - known):
            yield Finding(
                "numbers",
                f"{number} in “{_excerpt(paragraph)}” stands in no quote of a source cited there;"
                " leave it out or cite its source",
            )
    for name in ("title", "description"):
        for number in sorted(numbers(getattr(manuscript, name)) - anywhere):
            yield Finding("numbers", f"{number} in the {name} stands in no verified quote")


def quotations_are_quotes(manuscript: Manuscript, context: Context) -> Iterator[Finding]:
    """More than five words in quotation marks are a verified quote, word for word."""
    if not context.cites:
        return
    for text in (manuscript.title, manuscript.description, _prose(manuscript.markdown)):
        for match in _QUOTATION.finditer(text):
            quotation = next(group for group in match.groups() if group is not None)
            bare = CITATION.sub("", quotation).strip(" .,;:!?…")
            if len(bare.split()) < QUOTATION_WORDS_MIN:
                continue
            if not any(contains(claim.quote, bare) for claim in context.claims):
                yield Finding(
                    "quotations",
                    f"“{_excerpt(bare)}” is in quotation marks but is no verified quote;"
                    " use a claim's quote unchanged, or your own words",
                )


def nothing_is_copied(manuscript: Manuscript, context: Context) -> Iterator[Finding]:
    """No longer run of a source's words than a fair quotation."""
    length = FAIR_QUOTATION_WORDS + 1
    # A citation ends a run: what stands between two is quoted from its source, and bounded.
    pieces = [words(piece) for piece in CITATION.split(_prose(manuscript.markdown))]
    for source in context.evidence.values():
        runs = _runs(words(source.text), length)
        for piece in pieces:
            copied = next((run for run in _ordered_runs(piece, length) if run in runs), None)
            if copied:
                yield Finding(
                    "copying",
                    f"“{' '.join(copied[:8])} …” repeats more than {FAIR_QUOTATION_WORDS} words"
                    f" of {source.id}; say it in your own words",
                )
                break


def not_a_repeat(manuscript: Manuscript, context: Context) -> Iterator[Finding]:
    """It is not an earlier article again."""
    title = alike(manuscript.title).casefold()
    for earlier in context.earlier_titles:
        other = alike(earlier).casefold()
        if title == other or (
            numbers(title) == numbers(other)
            and SequenceMatcher(None, title, other).ratio() >= REPEAT_SIMILARITY
        ):
            yield Finding("repeat", f"the publication already has “{earlier}”; find another angle")
            return


def links_are_known(manuscript: Manuscript, context: Context) -> Iterator[Finding]:
    """It links only to what was read for it."""
    known = {_same(url) for url in context.links}
    for url in sorted(set(_links(manuscript.markdown))):
        if _same(url) not in known:
            yield Finding("links", f"{url[:120]} was not read for this article; remove the link")


def no_markup_tricks(manuscript: Manuscript, context: Context) -> Iterator[Finding]:
    """No raw HTML, no images, no front matter, no Liquid, no mentions, nothing hidden."""
    kinds = {token.type for token in _tokens(manuscript.markdown)}
    if kinds & {"html_block", "html_inline"}:
        yield Finding("markup", "it has raw HTML; use Markdown only")
    if "image" in kinds:
        yield Finding("markup", "it has an image; remove it")
    if re.match(r"\s*(---|\+\+\+)\s*\n", manuscript.markdown):
        yield Finding("markup", "it begins like front matter; begin with a paragraph")
    everything = "\n".join((manuscript.title, manuscript.description, *manuscript.tags))
    everything += "\n" + _prose(manuscript.markdown)
    everything += "\n" + "\n".join(_liquid_places(manuscript.markdown))
    if "{%" in everything or "{{" in everything:
        yield Finding("markup", "it has {% or {{ outside code; a platform would run it")
    if _MENTION.search(everything):
        yield Finding("markup", "it has an @mention; write the name without the @")
    if any(is_hidden(character) for character in everything + manuscript.markdown):
        yield Finding("markup", "it has characters that do not show")


def keeps_secrets(manuscript: Manuscript, context: Context) -> Iterator[Finding]:
    """No secret, and no run of our own instructions."""
    # As it is written and as it is shown: a backslash would hide a key from the pattern.
    everything = "\n".join(
        (manuscript.title, manuscript.description, manuscript.markdown, _prose(manuscript.markdown))
    )
    if looks_secret(everything) or any(s in everything for s in context.secrets if len(s) > 7):
        yield Finding("secrets", "it has something that looks like a key or password; remove it")
    ours = frozenset[tuple[str, ...]]().union(
        *(_runs(words(prompt), PROMPT_RUN_WORDS) for prompt in context.prompts)
    )
    if any(run in ours for run in _ordered_runs(words(everything), PROMPT_RUN_WORDS)):
        yield Finding("secrets", "it repeats its own instructions; remove them")


def fits_the_platforms(manuscript: Manuscript, context: Context) -> Iterator[Finding]:
    """Lengths and tags within what platforms take, and the length the operator asked for."""
    if not 0 < len(manuscript.title) <= TITLE_MAX:
        yield Finding(
            "length", f"the title has {len(manuscript.title)} characters; 1 to {TITLE_MAX}"
        )
    if len(manuscript.markdown.encode()) > BODY_BYTES_MAX:
        yield Finding("length", f"the text is larger than {BODY_BYTES_MAX // 1024} kB")
    if not manuscript.tags:
        yield Finding("tags", "it has no usable tag; give one to four of letters and digits")
    count = len(words(CITATION.sub("", manuscript.markdown)))
    if context.cites and count < WORDS_FLOOR:
        yield Finding("length", f"{count} words are no article; {context.words_min} are wanted")
    elif not context.words_min * 0.9 <= count <= context.words_max * 1.1:
        yield Finding(
            "length",
            f"it has {count} words; {context.words_min} to {context.words_max} are wanted",
            refuses=False,
        )


def headings_are_sound(manuscript: Manuscript, context: Context) -> Iterator[Finding]:
    """Headings begin at the second level and skip none."""
    level = 1
    for token in _tokens(manuscript.markdown):
        if token.type == "heading_open":
            found = int(token.tag[1:])
            if found == 1 or found > level + 1:
                yield Finding("headings", "headings begin with ## and go one level at a time")
                return
            level = found


def nothing_is_worn_out(manuscript: Manuscript, context: Context) -> Iterator[Finding]:
    """It does without the phrases that readers have learnt to skip."""
    text = alike(f"{manuscript.title} {manuscript.description} {manuscript.markdown}").casefold()
    for phrase in _WORN_OUT:
        if phrase in text:
            yield Finding("style", f"“{phrase}” is worn out; say what you mean", refuses=False)


RULES: tuple[Rule, ...] = (
    citations_resolve,
    numbers_are_quoted,
    quotations_are_quotes,
    nothing_is_copied,
    not_a_repeat,
    links_are_known,
    no_markup_tricks,
    keeps_secrets,
    fits_the_platforms,
    headings_are_sound,
    nothing_is_worn_out,
)


def _paragraphs(markdown: str) -> list[str]:
    """Blocks of text: a paragraph, a heading, or a whole list."""
    apart = re.sub(r"^(#{1,6}[ \t].*)$", r"\n\1\n", markdown, flags=re.MULTILINE)
    return [block.strip() for block in re.split(r"\n\s*\n", apart) if block.strip()]


def _without_numerals(block: str) -> str:
    """A list without its own numbers; a number that a line happens to begin with stays."""
    first = _LIST_NUMERAL.search(block)
    if first and (first.start() == 0 or first[0].split()[0].rstrip(".)") == "1"):
        return _LIST_NUMERAL.sub("", block)
    return block


def _trimmed(markdown: str) -> str:
    """Without blank lines around it; the indent of a first line of code stays."""
    return re.sub(r"\A(?:[ \t]*\n)+", "", markdown).rstrip()


def _same(url: str) -> str:
    """An address as Markdown writes it, so that two spellings of one are one."""
    return str(_parser().normalizeLink(url)).replace("(", "%28").replace(")", "%29")


def _liquid_places(markdown: str) -> Iterator[str]:
    """Where Forem runs Liquid though Markdown shows code or nothing: it spares backticks only."""
    for token in _tokens(markdown):
        if token.type == "link_open":
            yield str(token.attrGet("title") or "")
        if token.type == "code_block" or (token.type == "fence" and token.markup[0] == "~"):
            yield "".join(re.findall(r"\{[%{]", token.content))


@cache
def _parser() -> Any:
    from markdown_it import MarkdownIt

    # html=True so that raw HTML shows as a token of its own.
    parser = MarkdownIt("commonmark", {"html": True}).enable("table")
    # A link that this parser would not make, such as javascript:, is still to be seen here.
    parser.validateLink = lambda url: True  # type: ignore[method-assign]
    return parser


def _tokens(markdown: str) -> list[Any]:
    """Every Markdown token, the inline ones included."""
    blocks = _parser().parse(markdown)
    return [token for block in blocks for token in (block, *(block.children or ()))]


def _prose(markdown: str) -> str:
    """What is neither code nor markup, a line per block; citations kept."""
    blocks = _parser().parse(markdown)
    return "\n".join(
        "".join(
            child.content if child.type in ("text", "html_inline") else " "
            for child in block.children or ()
            if child.type in ("text", "softbreak", "hardbreak", "html_inline", "code_inline")
        )
        for block in blocks
        if block.type == "inline"
    )


def _links(markdown: str) -> Iterator[str]:
    """Every address: of links, autolinks, definitions, and bare ones platforms make clickable."""
    for token in _tokens(markdown):
        if token.type == "link_open":
            yield str(token.attrGet("href") or "")
    env: dict[str, Any] = {}
    _parser().parse(markdown, env)
    for reference in env.get("references", {}).values():
        yield str(reference["href"])
    for match in _URL.finditer(_prose(markdown)):
        yield match[0].rstrip(".,;:!?")


def _ordered_runs(text: Sequence[str], length: int) -> Iterator[tuple[str, ...]]:
    for start in range(len(text) - length + 1):
        yield tuple(text[start : start + length])


def _runs(text: Sequence[str], length: int) -> frozenset[tuple[str, ...]]:
    return frozenset(_ordered_runs(text, length))


def _excerpt(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= 80 else flat[:79] + "…"


def _without_hidden(text: str) -> str:
    return "".join(c for c in text.replace("\r\n", "\n") if not is_hidden(c))


def _separate_citations(group: re.Match[str]) -> str:
    return " ".join(f"[S{number}]" for number in re.findall(r"\d+", group[1]))


def _level_headings(markdown: str, title: str) -> str:
    """Headings from the second level down, none skipped, the title not repeated."""
    out, level, shift, fence = [], 1, None, ""
    for line in markdown.split("\n"):
        mark = re.match(r"\s{0,3}(`{3,}|~{3,})", line)
        if mark and (not fence or line.strip().startswith(fence)):
            fence = "" if fence else mark[1]
        heading = None if fence else _HEADING.fullmatch(line)
        if heading is None:
            out.append(line)
            continue
        if not any(text.strip() for text in out) and alike(heading[2]) == alike(title):
            continue
        found = len(heading[1])
        shift = 2 - found if shift is None else shift
        level = max(2, min(found + shift, level + 1, 6))
        out.append(f"{'#' * level} {heading[2]}")
    return _trimmed("\n".join(out))


def plain_tags(tags: Sequence[str]) -> tuple[str, ...]:
    """Tags as every platform takes them: at most four, lower-case letters and digits."""
    plain = (re.sub(r"[^a-z0-9]", "", tag.casefold())[:TAG_MAX] for tag in tags)
    return tuple(dict.fromkeys(tag for tag in plain if tag))[:TAGS_MAX]


def looks_secret(text: str) -> bool:
    """Whether a text has something shaped like a key or password."""
    return _SECRET.search(text) is not None


def without_mentions(text: str) -> str:
    """Plain text in which @name is a name and pages nobody."""
    return _MENTION.sub("", text)


def without_addresses(text: str) -> str:
    """Plain text in which an address is a name that no platform makes clickable."""
    return re.sub(r"\b(?:https?://|www\.)+", "", text, flags=re.IGNORECASE)


def tags_from(text: str) -> tuple[str, ...]:
    """Tags for a text that nobody tagged: its own keywords, the longer ones first."""
    found = sorted(keywords(text), key=lambda word: (-len(word), word))
    return plain_tags([word for word in found if word.isascii() and word.isalpha()])
