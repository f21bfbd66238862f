"""
What the scripted model writes: one function per schema, prompt text in, JSON value out.

It invents nothing: every claim is a sentence of a source, every number in a draft stands in a
claim cited beside it, and the same prompt always gives the same answer.
"""

from __future__ import annotations

import html
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

CLAIMS_MAX = 4
SHORTLIST = 12  # sentences a source may offer to one question
WORDS_WANTED = (300, 600)  # where the prompt names no length

_SOURCE = re.compile(r'<source\s+id="([^"]+)"(?:\s+title="([^"]*)")?[^>]*>(.*?)</source>', re.S)
_CLAIM = re.compile(r'^[ \t]*(?:[-*][ \t]+)?\[(\w+)\][ \t]+(.+?)[ \t]+\|[ \t]+"(.*)"\s*$', re.M)
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
# Markup, addresses, code and quotation marks would need care in an article; plain prose does not.
_UNFIT = re.compile(r"""[<>{}\[\]|"“”`@#*_\\=]|https?:|www\.|:$|\b(?:e\.g|i\.e|vs|cf|etc)\.$""")
# Said by somebody, or leaning on the sentence before: hard to restate alone.
_BOUND = re.compile(
    r"\b(?:I|we|my|our|me|us)\b"
    r"|^(?:Also|And|Below|But|Hence|It|Next|Provided|So|That|Then|Therefore|These|They|This)\b",
    re.I,
)
_LENGTH = re.compile(r"(\d[\d,]*)\s*(?:-|\u2013|to|and)\s*(\d[\d,]*)\s+words")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_LOWERED = _words("A Also An As At Before Both For From If In It On The These This To When While")
_STOP = _words(
    "about above after again also because been before being both could does done each from have "
    "here into just like made make many more most much must only other over same should some such "
    "than that their them then there these they this those through under very want well were what "
    "when where which while will with within would your"
)


@dataclass(frozen=True, slots=True)
class Source:
    """One `<source>` block; the text is as the prompt has it."""

    id: str
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Claim:
    """One claim line: what is stated and where it was read."""

    source: str
    statement: str
    quote: str


def sources(prompt: str) -> list[Source]:
    """Every source block in the prompt, in order; only the title is unescaped."""
    return [
        Source(name, html.unescape(title or "").strip(), text)
        for name, title, text in _SOURCE.findall(prompt)
    ]


def claims(prompt: str) -> list[Claim]:
    """Every `[S1] statement | "quote"` line; of those with one quote, the first."""
    found = [Claim(*parts) for parts in _CLAIM.findall(prompt)]
    return list({claim.quote: claim for claim in reversed(found)}.values())[::-1]


# The plan

_TITLES = ("What {} Means in Practice", "A Closer Look at {}", "{}, Read Carefully")
_LEAD = re.compile(
    r"^(?:how to (?:programmatically )?\w+(?: and \w+)? |introducing |announcing |why |what is )",
    re.I,
)
_DANGLING = _words("a an and are at by for from in is of on or the to vs with")


def plan(prompt: str) -> dict[str, object]:
    """An angle, a working title without digits, and three to five questions."""
    titles = [source.title for source in sources(prompt) if source.title] or _listed(prompt)
    subjects = list(dict.fromkeys(filter(None, map(_subject, titles)))) or ["the subject at hand"]
    subject = subjects[0]
    shape = random.Random(subject).choice(_TITLES)
    questions = [
        f"What does {subject} change for the people who run it?",
        f"How does {subject} work, and what does it need?",
        f"Where does {subject} fall short, and what should be done about it?",
    ]
    questions += [f"What does {other} add to this?" for other in subjects[1:3]]
    return {
        "angle": f"What a practitioner should know about {subject} before relying on it.",
        "working_title": shape.format(subject),
        "questions": questions,
    }


def _listed(prompt: str) -> list[str]:
    items = re.findall(r"^- +(?:\[\w+\] *)?(.+)$", prompt, re.M)
    return [item for item in items if len(item.split()) >= 2]


def _subject(title: str) -> str:
    """The head of a title: no subtitle, no word with a digit, seven words at most."""
    head = _LEAD.sub("", re.split(r"\s[-\u2013\u2014|(]\s?|[:(|]\s?", title.strip())[0])
    words = [word.strip("\"'“”.,!?") for word in head.split() if not re.search(r"\d", word)][:7]
    while words and words[-1].lower() in _DANGLING:
        words.pop()
    return " ".join(words)


def _topic(title: str) -> str:
    """What a working title is about, whichever way it was put."""
    for shape in _TITLES:
        before, _, after = shape.partition("{}")
        if title.startswith(before) and title.endswith(after):
            return title.removeprefix(before).removesuffix(after)
    return _subject(title) or "the subject"


# Notes


def notes(prompt: str) -> dict[str, object]:
    """Up to four sentences that bear on the question, spread over the sources."""
    question = _line(prompt, "Question")
    dice = random.Random(question)
    shelves = [
        [(source, sentence) for sentence in _best_sentences(source, _keywords(question), dice)]
        for source in sources(prompt)
    ]
    # One round per rank: the best of every source comes before the second best of any.
    rounds = (pick for rank in zip_longest(*shelves) for pick in rank if pick is not None)
    chosen = list(rounds)[:CLAIMS_MAX]
    if not chosen:
        return {"claims": [], "gaps": [f"No source here answers: {question or 'the question'}"]}
    return {
        "claims": [
            {"statement": restate(source, quote, rank), "quote": quote, "source": source.id}
            for rank, (source, quote) in enumerate(chosen)
        ],
        "gaps": [],
    }


def invented_notes(prompt: str) -> dict[str, object]:
    """Notes whose quotes are in no source."""
    known = sources(prompt)
    quote = "Nobody ever wrote that eleven quiet herons audited the turbine ledger by moonlight."
    claim = {
        "statement": "The source reports that eleven herons audited the ledger.",
        "quote": quote,
        "source": known[0].id if known else "S1",
    }
    return {"claims": [claim], "gaps": []}


def restate(source: Source, quote: str, turn: int = 0) -> str:
    """The sentence with a new opening; every number in it stays, none is added."""
    title, (first, _, rest) = source.title, quote.partition(" ")
    # A word the source also writes small is no name, and loses its capital inside a sentence.
    common = first in _LOWERED or f" {first.strip(',').lower()} " in source.text
    body = f"{first.lower()} {rest}" if common else quote
    # A digit in the title would be a number that the quote does not bear out.
    plain = (
        re.search(r"[a-z]", title)
        and len(title) <= 80
        and not re.search(r"\d", title)
        and not _UNFIT.search(title)
    )
    openings = ("According to {},", "{} reports that", "As {} puts it,", "In {} we read that")
    opening = openings[turn % len(openings)].format(title if plain else "the source")
    return f"{opening[0].upper()}{opening[1:]} {_interrupted(body)}"


def _interrupted(body: str) -> str:
    """A long sentence with a breath at a comma near its middle, so that it is not one long copy."""
    words = body.split()
    breaks = [at for at, word in enumerate(words) if word.endswith(",") and at >= 5]
    breaks = [at for at in breaks if len(words) - at > 6]
    if len(words) <= 18 or not breaks:
        return body
    at = min(breaks, key=lambda at: abs(at - len(words) // 2)) + 1
    return " ".join([*words[:at], "it goes on,", *words[at:]])


def _best_sentences(source: Source, wanted: set[str], dice: random.Random) -> list[str]:
    # A line that goes on in lower case was wrapped, not ended.
    text = re.sub(r"[ \t]*\n(?=[a-z])", " ", source.text)
    fit = [s for s in map(str.strip, _SENTENCE.split(text)) if _fits(s)]
    related = [s for s in dict.fromkeys(fit) if not wanted or wanted & _keywords(s)]
    best = [s for s in related if not _BOUND.search(s)] or related
    best = sorted(best, key=lambda s: -_worth(s, wanted))[:SHORTLIST]
    # Questions about one subject share their words; chance keeps their answers apart.
    return dice.sample(best, len(best))


def _fits(sentence: str) -> bool:
    words = sentence.split()
    return (
        8 <= len(words) <= 40
        and sentence.endswith(".")
        and not sentence.endswith("..")
        and sentence[0].isupper()
        and not _UNFIT.search(sentence)
        and sentence.count("(") == sentence.count(")")
    )


def _worth(sentence: str, wanted: set[str]) -> int:
    """Shared words count for, great length against."""
    return 2 * len(wanted & _keywords(sentence)) - (len(sentence.split()) > 24)


def _keywords(text: str) -> set[str]:
    words = re.findall(r"[a-z][a-z-]{3,}", text.lower())
    return {word.rstrip("s") for word in words if word not in _STOP}


# The draft

_INTRODUCTION = (
    "{topic} is easier to judge with the evidence laid side by side. What follows goes through "
    "what was published about it, names where each point comes from, and says where a reader "
    "should stay careful.",
    "Much of what is said about {topic} is said without a source. This article does the opposite: "
    "it takes the points that were written down, keeps each beside its origin, and asks what they "
    "mean for somebody who has to decide.",
    "Before acting on {topic} it helps to know what is established and what is merely repeated. "
    "Here are the points that could be traced, in the order in which a practitioner would ask.",
)
_HEADINGS = ("What is known", "How it works", "What it takes", "Where to be careful")
_REMARKS = (
    "For anyone who works with {topic}, that is worth checking against their own setup.",
    "The practical question is whether the same holds under local conditions.",
    "Read narrowly, this says something about {topic} and nothing about its neighbours.",
    "It is the kind of detail that decides whether a plan survives daily use.",
    "A short trial on a spare system would show quickly how far this carries.",
    "Whoever owns {topic} in a team should be the person to confirm it.",
    "The statement is specific, which makes it easy to test and easy to retract.",
    "Nothing here removes the need to keep a way back.",
    "It also explains why people who skip this step tend to return to it.",
    "What remains open is how {topic} behaves when the load is uneven.",
    "Seen from operations, the cost is mostly attention rather than equipment.",
    "Teams that document {topic} early have less to reconstruct later.",
    "The point is modest, and it is more useful for being modest.",
    "A careful reader will note what the author does not claim about {topic}.",
    "That leaves the choice of timing to whoever carries the risk.",
    "If local measurements disagree, the measurements should win.",
    "Much depends on what {topic} is expected to do on an ordinary day.",
    "The order of the steps matters here as much as the steps themselves.",
    "It would be a mistake to read this as a promise about every release.",
    "Put beside the other points, it narrows the choice considerably.",
    "The simplest way to use this is to write it into the checklist for {topic}.",
    "Anybody new to {topic} can take it as a place to begin.",
    "It costs little to verify and a good deal to assume.",
    "The reasoning behind it is as useful as the result.",
)
_CLOSING = (
    "Taken together, these points describe {topic} well enough to plan a careful start, and not "
    "well enough to skip a test. The sources are named so that a reader can weigh them directly."
)


def draft(prompt: str) -> dict[str, object]:
    """An article made of the claims in the prompt, each followed by its citation."""
    known = claims(prompt)
    title = _line(prompt, "Working title") or "What the Sources Say"
    topic = _topic(title)
    dice = random.Random(title + "".join(claim.statement for claim in known))
    least, most = _length(prompt)
    # An article that fills its limit exactly is one remark away from breaking it.
    budget = most - (most - least) // 4 - 120
    kept = [c for c, spent in zip(known, _running_words(known), strict=True) if spent <= budget]
    sections = _sections(kept or known[:1])
    remarks = dice.sample(_REMARKS, len(_REMARKS))
    opening, closing = dice.choice(_INTRODUCTION).format(topic=_capital(topic)), _CLOSING
    while True:
        markdown = _compose(sections, opening, closing.format(topic=topic))
        if not remarks or len(markdown.split()) >= least + (most - least) // 4:
            break
        _shortest(sections).append(remarks.pop().format(topic=topic))
    return {
        "title": title,
        "description": _cut(f"What was published about {topic}, point by point with sources.", 150),
        "tags": _tags(title),
        "markdown": markdown,
    }


_Section = list[list[str]]  # paragraphs of sentences


def _sections(known: Sequence[Claim]) -> list[_Section]:
    """Two to four sections; a paragraph keeps to the claims of one source, two at most."""
    count = min(len(_HEADINGS), max(2, len(known) // 3))
    size = -(-len(known) // count)
    sections: list[_Section] = []
    for start in range(0, count * size, size) if size else ():
        section: _Section = []
        previous = ""
        for claim in known[start : start + size]:
            if claim.source == previous and len(section[-1]) < 2:
                section[-1].append(_cited(claim))
            else:
                section.append([_cited(claim)])
            previous = claim.source
        sections.append(section)
    spare = ["The sources leave this open, and so does this article."]
    return [section or [spare] for section in sections] or [[spare], [list(spare)]]


def _cited(claim: Claim) -> str:
    return f"{claim.statement.rstrip(' .')} [{claim.source}]."


def _compose(sections: list[_Section], opening: str, closing: str) -> str:
    blocks = [opening]
    for heading, section in zip(_HEADINGS, sections, strict=False):
        blocks += [f"## {heading}", *(" ".join(paragraph) for paragraph in section)]
    return "\n\n".join([*blocks, closing]) + "\n"


def _shortest(sections: list[_Section]) -> list[str]:
    return min((p for section in sections for p in section), key=lambda p: len(" ".join(p)))


def _running_words(known: Sequence[Claim]) -> list[int]:
    spent, sums = 0, []
    for claim in known:
        spent += len(claim.statement.split()) + 1
        sums.append(spent)
    return sums


def _length(prompt: str) -> tuple[int, int]:
    found = _LENGTH.search(prompt)
    if not found:
        return WORDS_WANTED
    least, most = (int(number.replace(",", "")) for number in found.groups())
    return least, max(least, most)


def _tags(title: str) -> list[str]:
    words = (re.sub(r"[^a-z0-9]", "", word) for word in title.lower().split())
    fit = [word for word in words if 4 <= len(word) <= 20 and word not in _STOP]
    return list(dict.fromkeys(fit))[:4] or ["technology"]


# Review and announcement


def review(_prompt: str) -> dict[str, object]:
    """Approval without conditions."""
    return {
        "verdict": "approve",
        "score": 8,
        "problems": [],
        "unsupported": [],
        "questions": [],
    }


def announcement(prompt: str) -> dict[str, object]:
    """One post under 220 characters about the article named on the `Title:` line."""
    title = _line(prompt, "Title") or _line(prompt, "Working title") or "A new article"
    return {"posts": [_cut(f"{_cut(title, 120)}: what the sources say, point by point.", 215)]}


def _line(prompt: str, label: str) -> str:
    # A quotation mark before the label would be a field of a JSON schema.
    found = re.search(rf"^[ \t*#_-]*{label}[ *_]*:[ \t]*(\S.*)$", prompt, re.M | re.I)
    return found[1].strip('*_`"“” \r') if found else ""


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[:most].rsplit(" ", 1)[0]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


WRITERS = {
    "plan": plan,
    "notes": notes,
    "draft": draft,
    "review": review,
    "announcement": announcement,
}
