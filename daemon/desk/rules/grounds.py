"""What is printed is borne out: citations, numbers, quotations, and no copying."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

from daemon.desk.evidence import Claim, contains, shortens
from daemon.desk.figures import borne_out, compounds, numbers, stated, without_compounds
from daemon.desk.lures import addresses_in_code, domains_in, hosts, packages_in, stands
from daemon.desk.manuscript import Context, Finding, Manuscript, excerpt
from daemon.desk.markdown import CITATION, Block, Reading, addresses_in, read
from daemon.sources.text import sentences, word_count, words

# A longer run of a source's words is copying, not quoting.
FAIR_QUOTATION_WORDS = 40
# Shorter ones are names and set phrases.
QUOTATION_WORDS_MIN = 6
# What code needs however it was made: a first index, a return value.
_COMMON_IN_CODE = frozenset(("0", "1"))
# Each style by itself, so that one inside another is seen as well.
_QUOTATIONS = tuple(
    re.compile(pattern)
    for pattern in (
        r"“([^”“\n]+)”", r"„([^“”\n]+)[“”]", r"«([^«»\n]+)»", r"‹([^‹›\n]+)›", r"「([^「」\n]+)」",
        r"『([^『』\n]+)』", r"《([^《》\n]+)》", r"〝([^〝〞〟\n]+)[〞〟]",
        r"❝([^❝❞\n]+)❞", r"``([^`'\n]+)''",
        # A single mark opens where no word stands before it; apostrophes inside words are none.
        r"(?<!\w)['‘‚‛](?=[^\W\d])((?:[^'’‘\n]|(?<=\w)['’](?=\w))+)(?<=\S)['’‘](?!\w)",
    )
)  # fmt: skip
_REVERSED = re.compile(r"»([^»«\n]+)«")
_STRAIGHT = re.compile(r"[\"＂]")
_INCHES = re.compile(r"(?<=\d)\"(?!\w)")
_DOUBLE = re.compile(r"[\"＂“”„‟«»〝〞〟❝❞]")
_OPENERS, _CLOSERS = "“„«", "”“»"
# How a writer counts sections and steps: `3. Ground`, `Step 3: ground`.
_PLACE = re.compile(
    r"^(step|part|phase|stage|tip|rule|lesson)?\s?(\d{1,2})[.:)](?=\s)",
    re.IGNORECASE | re.MULTILINE,
)
_BETWEEN_CITATIONS = " .,;:!?…\"'“”„«»‘’‹›"
_UNVOUCHED = "is in no quote, or one site alone names it; leave the address out"
_SPOKEN_WORD = re.compile(r"[^\W_]+")


def citations_resolve(manuscript: Manuscript, context: Context) -> Iterator[Finding]:
    """Every citation names evidence that a verified claim rests on."""
    if not context.cites:
        return
    grounded = {claim.source for claim in context.claims}
    cited = {f"S{number}" for number in CITATION.findall(manuscript.markdown)}
    for source in sorted(cited - grounded):
        known = ", ".join(sorted(grounded)) or "no other"
        yield Finding(
            "citations", f"[{source}] is no source of a verified claim; cite one of: {known}"
        )


def something_is_cited(manuscript: Manuscript, context: Context) -> Iterator[Finding]:
    """An article cites at least once."""
    if context.cites and not CITATION.search(manuscript.markdown):
        yield Finding("citations", "nothing is cited; put [S1] and the like after each fact")


def citations_stand_in_text(manuscript: Manuscript, context: Context) -> Iterator[Finding]:
    """Every citation stands where it can become a link: not in code, a link or a title."""
    if not context.cites:
        return
    seen = [s for block in read(manuscript.markdown).blocks for s in block.cited]
    written = [f"S{number}" for number in CITATION.findall(manuscript.markdown)]
    if sorted(seen) != sorted(written):
        odd = sorted(set(seen) ^ set(written)) or sorted(set(written))
        yield Finding(
            "citations",
            f"[{odd[0]}] stands in code, in a link or between other marks;"
            " put it plainly after the sentence",
        )
    for name in ("title", "description"):
        if CITATION.search(getattr(manuscript, name)):
            yield Finding("citations", f"the {name} has a citation; cite in the text only")


def numbers_are_quoted(manuscript: Manuscript, context: Context) -> Iterator[Finding]:
    """Every number stands in a verified quote of a source cited in the same paragraph."""
    if not context.cites:
        return
    borne = {
        source: _borne_by(claim for claim in context.claims if claim.source == source)
        for source in {claim.source for claim in context.claims}
    }
    anywhere = frozenset[str]().union(*borne.values())
    names = _source_compounds(context)
    for block, text in _without_places(read(manuscript.markdown).blocks):
        at_hand = frozenset[str]().union(*(borne.get(source, ()) for source in block.cited))
        known = anywhere if block.heading else at_hand
        found = stated(without_compounds(CITATION.sub(" ", text), names))
        found |= {block.numeral} if block.numeral else set()
        for number in sorted(found - known):
            yield Finding(
                "numbers",
                f"{number} in “{excerpt(block.text)}” stands in no quote of a source cited"
                " there; leave it out or cite its source",
            )


def numbers_of_head_are_quoted(manuscript: Manuscript, context: Context) -> Iterator[Finding]:
    """Every number in the title, the description and the tags stands in a verified quote."""
    if not context.cites:
        return
    anywhere = _borne_by(context.claims)
    names = _source_compounds(context)
    for name in ("title", "description"):
        text = without_compounds(getattr(manuscript, name), names)
        for number in sorted(stated(text) - anywhere):
            yield Finding(
                "numbers", f"{number} in the {name} stands in no verified quote; leave it out"
            )
    # Digits beside letters, as in python3, are part of a name.
    for tag in manuscript.tags:
        if tag.isdigit() and not numbers(tag) <= anywhere:
            yield Finding("numbers", f"the tag {tag} stands in no verified quote; use a word")


def numbers_in_code_are_sourced(manuscript: Manuscript, context: Context) -> Iterator[Finding]:
    """Every number in a code block stands in the text of a page that was read; 0 and 1 aside."""
    if not context.cites:
        return
    code = read(manuscript.markdown).code
    if not code:
        return
    read_ones = frozenset[str]().union(
        *(_source_numbers(s.text) for s in context.evidence.values())
    )
    quoted = _borne_by(context.claims)
    for content in code:
        for number in sorted(stated(content) - read_ones - quoted - _COMMON_IN_CODE):
            bare = number.lstrip("-")
            if bare not in read_ones | quoted | _COMMON_IN_CODE:
                yield Finding(
                    "numbers",
                    f"{number} in the code “{excerpt(content)}” stands in no source; show only"
                    " code that a source has",
                )


def _code_of(reading: Reading) -> list[str]:
    """What stands in code, between words and in blocks."""
    return [*reading.code, *(block.text for block in reading.blocks if block.has_code)]


def addresses_in_code_are_sourced(manuscript: Manuscript, context: Context) -> Iterator[Finding]:
    """Every address in code is borne out as one in the text is; example.com is fine there."""
    if not context.cites:
        return
    reading = read(manuscript.markdown)
    seen = set(addresses_in(reading.spoken))
    for content in _code_of(reading):
        for address in addresses_in_code(content):
            if address not in seen and not _is_vouched_for(address, context):
                yield Finding("links", f"{excerpt(address)} in code {_UNVOUCHED}")
                return


def domains_are_sourced(manuscript: Manuscript, context: Context) -> Iterator[Finding]:
    """
    Every domain named in the text stands in the address of a page that was read; or in a verified
    quote, and on two sites' pages or on one of its own.

    That a page, its title or its quote names it is not enough: one that is hostile asks for just
    that, in plain sight.
    """
    if not context.cites:
        return
    for name in dict.fromkeys(domains_in(read(manuscript.markdown).spoken)):
        if not _is_vouched_for(name, context):
            yield Finding("links", f"{excerpt(name)} {_UNVOUCHED}")


def packages_are_sourced(manuscript: Manuscript, context: Context) -> Iterator[Finding]:
    """
    Every package that a command would install is named by pages of two sites, or by one's address.

    Made-up names are registered by who waits for readers to install them, and a hostile page asks
    them to.
    """
    if not context.cites:
        return
    reading = read(manuscript.markdown)
    named = packages_in("\n".join((manuscript.title, manuscript.description, reading.spoken)))
    for code in (*reading.code, *reading.spans):
        named += packages_in(code, code=True)
    for name in dict.fromkeys(named):
        if not _is_known_package(name, context):
            yield Finding(
                "packages",
                f"{excerpt(name)} would be installed, and no two sites name it;"
                " leave the command out",
            )


def quotations_are_quotes(manuscript: Manuscript, context: Context) -> Iterator[Finding]:
    """More than five words in quotation marks are a verified quote, word for word."""
    if not context.cites:
        return
    texts = [manuscript.title, manuscript.description]
    texts += [block.quotable for block in read(manuscript.markdown).blocks]
    for text in texts:
        for quotation in quotations(text):
            bare = _bare(quotation)
            if _is_long(bare) and not is_quoted(bare, context):
                yield Finding(
                    "quotations",
                    f"“{excerpt(bare)}” is in quotation marks but is no verified quote;"
                    " use a claim's quote unchanged, or your own words without the marks",
                )


def block_quotes_are_quotes(manuscript: Manuscript, context: Context) -> Iterator[Finding]:
    """A block quote of more than five words is verified quotes, word for word."""
    if not context.cites:
        return
    for block in read(manuscript.markdown).blocks:
        bare = _bare(block.text.replace("\n", " "))
        if block.quoted and _is_long(bare) and not is_quoted(bare, context):
            yield Finding(
                "quotations",
                f"the block quote “{excerpt(bare)}” is no verified quote; use a claim's quote"
                " unchanged, or make it a paragraph in your own words",
            )


def nothing_is_copied(manuscript: Manuscript, context: Context) -> Iterator[Finding]:
    """No longer run of a source's words than a fair quotation, citations or not."""
    length = FAIR_QUOTATION_WORDS + 1
    shown = CITATION.sub(" ", read(manuscript.markdown).shown)
    text = _plain_words(f"{manuscript.description}\n{shown}")
    for source in context.evidence.values():
        runs = _source_runs(source.text, length)
        copied = next((run for run in ordered_runs(text, length) if hash(run) in runs), None)
        if copied:
            yield Finding(
                "copying",
                f"“{' '.join(copied[:8])} …” repeats more than {FAIR_QUOTATION_WORDS} words"
                f" of {source.id}; say it in your own words",
            )


def quotations(text: str) -> Iterator[str]:
    """
    What stands in quotation marks, whatever their style.

    A mark that is never closed takes the rest of its paragraph with it.
    """
    for paragraph in text.split("\n"):
        for pattern in _QUOTATIONS:
            yield from (match[1] for match in pattern.finditer(paragraph))
        first = re.search(r"[«»]", paragraph)
        if first and first[0] == "»":
            yield from (match[1] for match in _REVERSED.finditer(paragraph))
        straight = _STRAIGHT.split(_INCHES.sub("″", paragraph))
        yield from straight[1::2]
        if _is_mixed(paragraph):
            yield from _DOUBLE.split(paragraph)[1::2]
        if len(parts := _DOUBLE.split(_INCHES.sub("″", paragraph))) == 2:
            # It begins or ends in another paragraph.
            yield from parts


def is_quoted(bare: str, context: Context) -> bool:
    """Whether words are a verified quote, or sentences that each are one."""
    if _stands(bare, context):
        return True
    parts = [_bare(part) for part in sentences(bare)]
    return len(parts) > 1 and all(_stands(part, context) for part in parts if part)


def ordered_runs(text: Sequence[str], length: int) -> Iterator[tuple[str, ...]]:
    """Every run of so many words, in order."""
    for start in range(len(text) - length + 1):
        yield tuple(text[start : start + length])


def _stands(bare: str, context: Context) -> bool:
    # A sentence woven into another may begin with the other case.
    forms = (bare, bare[:1].swapcase() + bare[1:])
    return any(
        contains(claim.quote, form) or shortens(form, claim.quote)
        for claim in context.claims
        for form in forms
    )


def _is_mixed(paragraph: str) -> bool:
    """Whether the double marks do not pair by style."""
    openers = sum(paragraph.count(mark) for mark in _OPENERS)
    closers = sum(paragraph.count(mark) for mark in _CLOSERS)
    if not openers + closers:
        return False
    paired = paragraph.count("“") in (
        paragraph.count("”"), paragraph.count("„"), paragraph.count("”") + paragraph.count("„"),
    )  # fmt: skip
    guillemets = paragraph.count("«") == paragraph.count("»")
    return not (paired and guillemets)


def _bare(text: str) -> str:
    return " ".join(CITATION.sub("", text).split()).strip(_BETWEEN_CITATIONS)


def _is_long(text: str) -> bool:
    return word_count(text) >= QUOTATION_WORDS_MIN


def _without_places(blocks: Iterable[Block]) -> Iterator[tuple[Block, str]]:
    """Each block with its text, less the numbers that count sections or steps in their order."""
    last: dict[tuple[bool, str], int] = {}

    def dropped(found: re.Match[str]) -> str:
        kind, number = (block.heading, (found[1] or "").casefold()), int(found[2])
        if number not in (1, last.get(kind, 0) + 1):
            return found[0]
        last[kind] = number
        return ""

    for block in blocks:
        yield block, _PLACE.sub(dropped, block.text)


def _is_vouched_for(address: str, context: Context) -> bool:
    urls = [*context.links, *(source.url for source in context.evidence.values())]
    if stands(address, [*urls, *hosts(urls)]):
        return True
    if not stands(address, [claim.quote for claim in context.claims]):
        return False
    naming = [s.url for s in context.evidence.values() if stands(address, [s.text])]
    sites = set(hosts(naming))
    return len(sites) > 1 or any(
        f".{own}".endswith(f".{site}") for own in hosts([address]) for site in sites
    )


def _is_known_package(name: str, context: Context) -> bool:
    urls = [*context.links, *(source.url for source in context.evidence.values())]
    naming = [s.url for s in context.evidence.values() if stands(name, [s.text])]
    parts = {part for host in hosts(urls) for part in host.split(".")}
    return len(set(hosts(naming))) > 1 or name.casefold() in parts


def _plain_words(text: str) -> list[str]:
    """Words without what could be set between their letters to tell them from a source's."""
    return _SPOKEN_WORD.findall(" ".join(words(text)))


@lru_cache(maxsize=32)
def _source_runs(text: str, length: int) -> frozenset[int]:
    # Hashes of the runs: a page of 100 kB has 17,000 of 41 words each.
    return frozenset(hash(run) for run in ordered_runs(_plain_words(text), length))


def _source_compounds(context: Context) -> frozenset[str]:
    return frozenset[str]().union(*(compounds(s.text) for s in context.evidence.values()))


@lru_cache(maxsize=32)
def _source_numbers(text: str) -> frozenset[str]:
    return borne_out(text)


def _borne_by(claims: Iterable[Claim]) -> frozenset[str]:
    """The numbers that the quotes of these claims bear out."""
    return frozenset[str]().union(*(borne_out(claim.quote) for claim in claims))
