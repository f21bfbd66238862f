"""The posts that announce an article, held to the same rules in the words of short posts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import regex

from daemon.desk.lures import contacts_in, domains_in, order_in
from daemon.desk.manuscript import Context, Finding, Manuscript, excerpt
from daemon.desk.markdown import addresses_in
from daemon.desk.mending import one_line
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
_CITATION = re.compile(r"\s*\[\^?[Ss]\d+\]")
# What a model adds though it was told not to: addresses behind the last word.
_TRAILING_ADDRESS = re.compile(
    r"(?:(?:^|\s)[(<\[]?(?:(?:https?|ftp)://|www\.)\S*)+$", re.IGNORECASE
)

PostRule = Callable[[str, Context], Iterator[Finding]]


def mended_posts(posts: Sequence[str]) -> tuple[str, ...]:
    """
    Posts with everything fixed that has one right fix; those that come to nothing are left out.

    One line each that pages nobody and hides nothing, without citations, without addresses at its
    end, with two hashtags at most and no place in the thread, cut where it is too long, and said
    once.
    """
    mended = (_mended(post, number, len(posts)) for number, post in enumerate(posts, start=1))
    by_words = {post.casefold(): post for post in reversed(list(filter(None, mended)))}
    return tuple(reversed(by_words.values()))


def trimmed(post: str) -> str:
    """A post of at most 300 graphemes and 3,000 bytes, cut at a word where it has words."""
    clusters = _GRAPHEME.findall(post)
    if len(clusters) <= GRAPHEMES_MAX and _size(post) <= BYTES_MAX:
        return post
    kept, room = "", BYTES_MAX - _size("…")
    for cluster in clusters[: GRAPHEMES_MAX - 1]:
        if _size(kept) + _size(cluster) > room:
            break
        kept += cluster
    if not kept:
        # One character under a tower of marks.
        kept = clusters[0].encode("utf-8", "surrogatepass")[:room].decode("utf-8", "ignore")
    if not post[len(kept)].isspace():
        words = kept.rpartition(" ")[0]
        # A script without spaces, or one endless word, is cut where it is full.
        kept = words if len(words) > len(kept) // 2 else kept
    return (kept.rstrip(" ,;:–—-") or kept) + "…"


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
    length, size = graphemes(post), _size(post)
    if not post.strip() or length > GRAPHEMES_MAX:
        yield Finding("length", f"it has {length} characters; give it 1 to {GRAPHEMES_MAX}")
    elif size > BYTES_MAX:
        yield Finding("length", f"it has {size} bytes; {BYTES_MAX} are the most")


def post_links_nowhere(post: str, context: Context) -> Iterator[Finding]:
    """A post has no address: the card under it has the one that counts."""
    bare = _BARE_ADDRESS.search(post)
    for address in [*addresses_in(post), *domains_in(post), *([bare[0]] if bare else [])][:1]:
        yield Finding("links", f"it has an address, {address[:120]}; the card links, so remove it")


def post_has_no_contacts(post: str, context: Context) -> Iterator[Finding]:
    """A post has no telephone number, mail address or wallet."""
    for contact in contacts_in(post)[:1]:
        yield Finding(
            "contacts", f"“{excerpt(contact)}” asks readers to call, write or pay; remove it"
        )


def post_orders_nothing(post: str, context: Context) -> Iterator[Finding]:
    """A post tells no model what to do: nothing around it would show that it only quotes."""
    if order := order_in(post):
        yield Finding("orders", f"“{excerpt(order)}” reads as an order to a model; leave it out")


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
    post_has_no_contacts,
    post_orders_nothing,
    post_has_few_hashtags,
    *map(
        _as_manuscript,
        (
            grounds.citations_stand_in_text,
            grounds.numbers_of_head_are_quoted,
            grounds.quotations_are_quotes,
            grounds.packages_are_sourced,
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


def _mended(post: str, number: int, count: int) -> str:
    """One post, mended until there is nothing left to mend."""
    while True:
        plain = one_line(_CITATION.sub("", one_line(post)))
        linkless = _TRAILING_ADDRESS.sub("", plain)
        plain = linkless.rstrip(" :→–—-") if linkless != plain else plain
        plain = trimmed(_with_few_hashtags(_without_place(plain, number, count)).strip())
        if plain == post:
            return plain
        post = plain


def _with_few_hashtags(post: str) -> str:
    """Of further ones those at the end go, and those within a sentence become its words."""
    while len(tags := list(_HASHTAG.finditer(post))) > HASHTAGS_MAX:
        last = tags[-1]
        tail = post[last.end() :]
        if tail.strip(" .!"):
            post = post[: last.start()] + post[last.start() + 1 :]
        else:
            post = post[: last.start()].rstrip()
    return post


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def _said_twice(posts: Sequence[str]) -> Iterator[Finding]:
    seen: set[str] = set()
    for number, post in enumerate(posts, start=1):
        same = " ".join(post.casefold().split())
        if same in seen:
            yield Finding("repeat", f"post {number}: it says what an earlier post says; drop it")
        seen.add(same)
