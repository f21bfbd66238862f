"""The posts that announce an article, held to the same rules in the words of short posts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import regex

from daemon.desk.manuscript import Context, Finding, Manuscript, excerpt
from daemon.desk.markdown import addresses_in
from daemon.desk.rules import grounds, markup, secrecy

# app.bsky.feed.post: both bounds hold.
GRAPHEMES_MAX = 300
BYTES_MAX = 3_000
HASHTAGS_MAX = 2
_HASHTAG = re.compile(r"(?<!\w)[#＃](?=\w*[^\W\d_])\w+")
_BARE_ADDRESS = re.compile(
    r"\b[\w-]+(?:\.[\w-]+)*\.(?:com|org|net|io|dev|to|app|ai|co|me|info|xyz|social|example|test)"
    r"\b(?!\.\w)|\b\w+://",
    re.IGNORECASE,
)
_GRAPHEME = regex.compile(r"\X")

PostRule = Callable[[str, Context], Iterator[Finding]]


def inspect_announcement(posts: Sequence[str], context: Context) -> list[Finding]:
    """
    Every finding on every post, in order; a finding names its post, counted from 1.

    Args:
        posts: plain text, as they will stand; the article's card is not part of them.
        context: the article's own; a digest's posts (`cites` false) need no quotes.
    """
    if not posts:
        return [Finding("length", "there is no post; write one")]
    found = [
        replace(finding, message=f"post {number}: {finding.message}")
        for number, post in enumerate(posts, start=1)
        for rule in POST_RULES
        for finding in rule(_without_place(post, number, len(posts)), context)
    ]
    return found + list(_said_twice(posts))


def graphemes(text: str) -> int:
    """Characters as a reader counts them (extended grapheme clusters), as Bluesky does."""
    return len(_GRAPHEME.findall(text))


def post_fits(post: str, context: Context) -> Iterator[Finding]:
    """A post has 1 to 300 graphemes and at most 3,000 bytes."""
    length, size = graphemes(post), len(post.encode("utf-8", "surrogatepass"))
    if not post.strip() or length > GRAPHEMES_MAX:
        yield Finding("length", f"it has {length} characters; give it 1 to {GRAPHEMES_MAX}")
    elif size > BYTES_MAX:
        yield Finding("length", f"it has {size} bytes; {BYTES_MAX} are the most")


def post_links_nowhere(post: str, context: Context) -> Iterator[Finding]:
    """A post has no address: the card under it has the one that counts."""
    bare = _BARE_ADDRESS.search(post)
    for address in [*addresses_in(post), *([bare[0]] if bare else [])][:1]:
        yield Finding("links", f"it has an address, {address[:120]}; the card links, so remove it")


def post_has_few_hashtags(post: str, context: Context) -> Iterator[Finding]:
    """A post has two hashtags at most."""
    tags = _HASHTAG.findall(post)
    if len(tags) > HASHTAGS_MAX:
        yield Finding(
            "hashtags", f"it has {len(tags)} hashtags, {excerpt(' '.join(tags))}; two at most"
        )


def _as_manuscript(rule: Callable[[Manuscript, Context], Iterator[Finding]]) -> PostRule:
    """A rule on articles, asked of a post: plain text, as a description is."""

    def of_post(post: str, context: Context) -> Iterator[Finding]:
        for finding in rule(Manuscript("", post, (), ""), context):
            said = finding.message.replace(" in the description", "").replace(
                "the description has", "it has"
            )
            yield replace(finding, message=said)

    of_post.__name__ = rule.__name__
    of_post.__doc__ = rule.__doc__
    return of_post


POST_RULES: tuple[PostRule, ...] = (
    post_fits,
    post_links_nowhere,
    post_has_few_hashtags,
    *map(
        _as_manuscript,
        (
            grounds.citations_stand_in_text,
            grounds.numbers_of_head_are_quoted,
            grounds.quotations_are_quotes,
            grounds.nothing_is_copied,
            markup.no_mentions,
            markup.nothing_is_hidden,
            markup.no_liquid,
            secrecy.no_secret,
            secrecy.no_instructions,
        ),
    ),
)


def _without_place(post: str, number: int, count: int) -> str:
    """A post without its own place in the thread, such as 1/3."""
    place = rf"\(?{number}/{count}\)?"
    return re.sub(rf"\A{place}(?=\s)|(?<=\s){place}\Z", "", post.strip()) if count > 1 else post


def _said_twice(posts: Sequence[str]) -> Iterator[Finding]:
    seen: set[str] = set()
    for number, post in enumerate(posts, start=1):
        same = " ".join(post.casefold().split())
        if same in seen:
            yield Finding("repeat", f"post {number}: it says what an earlier post says; drop it")
        seen.add(same)
