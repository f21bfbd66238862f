"""The desk has the last word: each rule, what keeps it and what does not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from daemon.crew.prompts import prompt
from daemon.desk import house
from daemon.desk.evidence import Claim, Evidence
from daemon.desk.house import Context, Manuscript, inspect, mended
from daemon.sources.text import is_hidden

SHARED = Path(__file__).parents[2] / "shared" / "corpora"
ATTACKS = SHARED / "bipia" / "benchmark"
NAUGHTY = SHARED / "naughty-strings" / "blns.json"

# Sixty-four words, none of them twice, so that every run of them is its own.
LONG = " ".join(
    f"{first}{second}"
    for first in ("ba", "de", "fi", "go", "lu", "my", "ro", "su")
    for second in ("bar", "den", "fir", "gon", "lup", "mys", "rot", "sum")
)
EVIDENCE = {
    "S1": Evidence("S1", "https://one.example/a", "One", f"The pump moved 42 litres. {LONG}."),
    "S2": Evidence("S2", "https://two.example/b_(c)", "Two", "Seven valves hold 350 tonnes back."),
}
CLAIMS = (
    Claim("It moved 42.", "The pump moved 42 litres in 1,000 seconds", "S1"),
    Claim("It never failed.", "It has never failed us in ten winters", "S1"),
    Claim("350 tonnes.", "Seven valves hold 350 tonnes back", "S2"),
)
BODY = """\
A penstock lets through as much water as the reservoir can bear, and no more than that. In the
measured hour the pump moved 42 litres in 1000 seconds [S1], which is less than its makers had
promised in their brochure, though nobody minded.

## What the keeper says

The keeper is content: “It has never failed us in ten winters” [S1]. Behind the gate, 350 tonnes
press against the valves [S2], and still one person can lift it with a crank."""
GOOD = Manuscript("How a sluice holds", "On sluices and their keepers.", ("sluices",), BODY)
CONTEXT = Context(
    EVIDENCE,
    CLAIMS,
    frozenset(["https://one.example/a", "https://one.example/a?b=1&c=2"]),
    earlier_titles=("What 3 keepers know about water", "On the price of gates"),
    prompts=(prompt("writer"), prompt("researcher"), prompt("editor")),
    secrets=("hunter2hunter2", "short"),
)


def refused(manuscript: Manuscript, context: Context = CONTEXT) -> set[str]:
    return {finding.rule for finding in inspect(manuscript, context) if finding.refuses}


def adding(text: str) -> Manuscript:
    """The good manuscript with one more paragraph."""
    return replace(GOOD, markdown=f"{BODY}\n\n{text}")


def test_a_good_manuscript_passes_as_it_is() -> None:
    assert inspect(GOOD, CONTEXT) == []
    assert mended(GOOD) == GOOD


@dataclass(frozen=True)
class Case:
    """A manuscript, as a paragraph added to the good one or by its fields, before one rule."""

    rule: str
    keeps: bool
    text: str = ""
    changes: dict[str, Any] = field(default_factory=dict)
    context: dict[str, Any] = field(default_factory=dict)

    def findings(self) -> list[house.Finding]:
        made = replace(adding(self.text) if self.text else GOOD, **self.changes)
        rule = getattr(house, self.rule)
        assert rule in house.RULES
        return list(rule(made, replace(CONTEXT, **self.context)))


def keeps(rule: str, *texts: str, **changes: Any) -> list[Case]:
    return [Case(rule, True, text, changes) for text in texts or ("",)]


def breaks(rule: str, *texts: str, **changes: Any) -> list[Case]:
    return [Case(rule, False, text, changes) for text in texts or ("",)]


UNCITED = {"cites": False}
COPIED = " ".join(LONG.split()[:60])
FAIR = " ".join(LONG.split()[:40])
INSTRUCTIONS = " ".join(prompt("writer").split()[:20])

CASES = [
    # Every citation names evidence that a verified claim rests on.
    *keeps("citations_resolve", "One more [S2].", "Code has `x[0]`."),
    *breaks("citations_resolve", "One more [S3].", "One more [S1][S22].", "One more [S01]."),
    *breaks("citations_resolve", markdown="Nothing is cited."),
    Case("citations_resolve", False, context={"claims": CLAIMS[:2]}),
    Case("citations_resolve", False, context={"claims": ()}),
    Case("citations_resolve", True, changes={"markdown": "Links only."}, context=UNCITED),
    # Every number stands in a verified quote of a source cited in the same paragraph.
    *keeps(
        "numbers_are_quoted",
        "It moved 1,000 and 42 [S1].",
        "It moved 42 [S2] and [S1].",
        "1. One [S1]\n2. Two\n3. Three",
        "12) Twelve",
        "IPv6, S3 and v2.1 are names.",
        "## 42 litres and 350 tonnes",
        "- It moved 42\n- of them [S1]",
    ),
    *breaks(
        "numbers_are_quoted",
        "It moved 43 [S1].",
        "It moved 42.",
        "It moved 42 [S2].",
        "It moved 4,2 [S1].",
        "It moved 42 [S1].\n\nAll 42 of them.",
        "## 43 litres",
        "## Litres\nIt moved 42 [S2].",
        "It moved water, up to\n45. That is much [S1].",
        "| 7 |",
        "It costs .5 of it [S1].",
    ),
    *keeps("numbers_are_quoted", title="42 litres", description="In 1000 seconds."),
    *breaks("numbers_are_quoted", title="43 litres"),
    *breaks("numbers_are_quoted", description="In 1001 seconds."),
    Case("numbers_are_quoted", True, "Number 7.", {"title": "8 reads"}, UNCITED),
    # More than five words in quotation marks are a verified quote, word for word.
    *keeps(
        "quotations_are_quotes",
        "He said “never failed us in ten winters”.",
        'He said "It has never failed us in ten winters."',
        "He said «It has never failed us in ten\nwinters».",
        "He said “It has never failed us in ten winters [S1]”.",
        "A “penstock” is a “sluice that lets through”.",
        '`print("one two three four five six seven")`',
        '```\n"one two three four five six seven"\n```',
    ),
    *breaks(
        "quotations_are_quotes",
        "He said “it will never fail us in ten winters”.",
        'He said "we have never seen such a flood".',
        "He said „we have never seen such a flood“.",
        "He said «we have never seen such a flood».",
        "He said “we have never seen\nsuch a flood”.",
        "He said “we have *never* seen such a flood”.",
        '> "we have never seen such a flood"',
        "He said &quot;we have never seen such a flood&quot;.",
    ),
    *breaks("quotations_are_quotes", title="“We have never seen such a flood”"),
    *breaks("quotations_are_quotes", description="“We have never seen such a flood”"),
    Case("quotations_are_quotes", True, "“we have never seen such a flood”", {}, UNCITED),
    # No longer run of a source's words than a fair quotation.
    *keeps("nothing_is_copied", FAIR, f"{FAIR} [S1] {FAIR}", LONG[::-1]),
    *breaks(
        "nothing_is_copied",
        COPIED,
        f"So it says: {COPIED.upper()}!",
        f"> {COPIED}",
        COPIED.replace(" ", "\n"),
        COPIED.replace(" ", ", "),
        f"*{COPIED[:60]}*{COPIED[60:]}",
    ),
    # It is not an earlier article again.
    *keeps("not_a_repeat", title="What 4 keepers know about water"),
    *keeps("not_a_repeat", title="On gates and what they cost"),
    *breaks("not_a_repeat", title="What 3 keepers know about water"),
    *breaks("not_a_repeat", title="WHAT  3 KEEPERS KNOW ABOUT WATER"),
    *breaks("not_a_repeat", title="What 3 keepers knew about water"),
    *breaks("not_a_repeat", title="On the price of gate"),
    # It links only to what was read for it.
    *keeps(
        "links_are_known",
        "[one](https://one.example/a)",
        "See https://one.example/a.",
        "<https://one.example/a>",
        "[one](https://one.example/a?b=1&c=2)",
        "[one][x]\n\n[x]: https://one.example/a",
        "`https://evil.example`",
        "```\ncurl https://evil.example\n```",
        "Version 1.2.3, e.g. this and.that",
    ),
    *breaks(
        "links_are_known",
        "[x](https://evil.example)",
        "[x](https://one.example/a/b)",
        "[x](https://one.example/a?leak=1)",
        "See https://evil.example/x.",
        "See HTTPS://EVIL.EXAMPLE.",
        "See (http://evil.example)",
        "<https://evil.example>",
        "[x][y]\n\n[y]: https://evil.example",
        "[y]\n\n[y]: https://evil.example",
        "[S1]: https://evil.example",
        "[1]: https://evil.example",
        "[S1](https://evil.example)",
        "[x](//evil.example)",
        "[x](/path)",
        "[x](mailto:a@b.example)",
        "<a@b.example>",
        "[x](javascript:alert(1))",
        "[x](data:text/html,x)",
        "See www.evil.example for more.",
        "[*x* `y`](https://evil.example)",
        "- > [x](https://evil.example)",
        "| [x](https://evil.example) |\n|---|\n| y |",
    ),
    # No raw HTML, no images, no front matter, no Liquid, no mentions, nothing hidden.
    *keeps(
        "no_markup_tricks",
        "```python\n@cache\ndef f(): ...\n```",
        "```\n{{ x }} {% raw %} <script> ![x](y)\n```",
        "Use `@cache`, `{{ x }}` and `<b>`.",
        "Write to ada at blog, or a@b.example.",
        "5 < 6 > 4 & a <- b, {x}, 100 %",
        "A rule follows.\n\n---\n\nAnd more.",
        "| a | b |\n|---|---|\n| c | d |",
        "Emoji 🌊 and é, 日本.",
    ),
    *breaks(
        "no_markup_tricks",
        "<b>bold</b>",
        "<script>alert(1)</script>",
        "a <!-- hidden --> comment",
        "<!-- a block -->",
        "a <img src=x> b",
        "</div>",
        "<?php x ?>",
        "![x](https://one.example/a)",
        "![x][y]\n\n[y]: https://one.example/a",
        "![](x.png)",
        "[![x](https://one.example/a)](https://one.example/a)",
        "{{ x }}",
        "{% embed x %}",
        "&#123;&#123; x }}",
        '[x](https://one.example/a "{{ x }}")',
        "[x](https://one.example/a '{% x %}')",
        # Dev.to shields code in backticks alone from its Liquid.
        "~~~\n{% embed x %}\n~~~",
        "So:\n\n    {% embed x %}",
        "Thanks @ada.",
        "@ada",
        "(@ada)",
        "**@ada**",
        "\\@ada",
        "&#64;ada",
        # Dev.to pages whatever matches \B@[a-z0-9_-]+ in a text node.
        ".@ada",
        "/@ada",
        "@@ada",
        "by`x`@ada",
        "## @ada",
        "zero\u200bwidth",
        "bidi \u202e and back",
        "\u2066isolate\u2069",
        "tags \U000e0041\U000e0042",
        "a\x00b",
        "a\x1bb",
        "soft\u00adhyphen",
        "private \ue000",
        "bytes 🌊\U000e0121",
        "&#8203;",
        "&zwj;",
        "`co\u200bde`",
    ),
    *breaks("no_markup_tricks", markdown=f"---\ntitle: x\n---\n\n{BODY}"),
    *breaks("no_markup_tricks", markdown=f"\n ---\n{BODY}"),
    *breaks("no_markup_tricks", markdown=f"+++\nx = 1\n+++\n{BODY}"),
    *breaks("no_markup_tricks", title="On {{ x }}"),
    *breaks("no_markup_tricks", title="On @ada"),
    *breaks("no_markup_tricks", title="On \u200bsluices"),
    *breaks("no_markup_tricks", description="By @ada"),
    *breaks("no_markup_tricks", description="On {% x %}"),
    *breaks("no_markup_tricks", description="On \u202esluices"),
    *breaks("no_markup_tricks", tags=("a\u200bb",)),
    # No secret, and no run of our own instructions.
    *keeps("keeps_secrets", "The sk-line, ghp_ and AKIA are names.", "A short one.",
           "You are the writer of a small publication, says the job advert."),
    *breaks(
        "keeps_secrets",
        "sk-abcdefghijklmnopqrstuv",
        "`sk-proj-abcdefghijklmnopqrstuv`",
        "sk\\-abcdefghijklmnopqrstuv",
        f"ghp_{'a1' * 18}",
        "AKIAABCDEFGHIJKLMNOP",
        "xoxb-1234567890-abc",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N",
        "-----BEGIN RSA PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----",
        "The password is hunter2hunter2.",
        INSTRUCTIONS,
        INSTRUCTIONS.upper(),
        f"```\n{INSTRUCTIONS}\n```",
        " ".join(prompt("editor").split()[30:50]),
        " ".join(prompt("researcher").split()[-20:]),
    ),
    *breaks("keeps_secrets", title="hunter2hunter2"),
    *breaks("keeps_secrets", description="sk-abcdefghijklmnopqrstuv"),
    # Lengths and tags within what platforms take.
    *keeps("fits_the_platforms", title="x" * 128, tags=("a", "b", "c", "d")),
    *breaks("fits_the_platforms", title="x" * 129),
    *breaks("fits_the_platforms", title=""),
    *breaks("fits_the_platforms", tags=()),
    *breaks("fits_the_platforms", markdown="word " * 59),
    *breaks("fits_the_platforms", markdown=f"{'word ' * 59}{'[S1] ' * 9}"),
    *breaks("fits_the_platforms", markdown="é" * 410_000 + " word" * 99),
    Case("fits_the_platforms", False, context={"words_min": 200, "words_max": 300}),
    Case("fits_the_platforms", False, context={"words_min": 20, "words_max": 40}),
    # Headings begin at the second level and skip none.
    *keeps("headings_are_sound", "### Deeper\n\n#### Still deeper\n\n## Back\n\n### Again",
           "```\n# a comment\n```", "Not a #heading\n#at all"),
    *breaks("headings_are_sound", "# First", "#### Too deep", "Setext\n======", "> # In a quote"),
    *breaks("headings_are_sound", markdown=f"### Too deep\n\n{BODY}"),
    # The phrases that readers have learnt to skip.
    *keeps("nothing_is_worn_out", "In today's world, we delve and conclude."),
    *breaks("nothing_is_worn_out", "Let’s delve into it.", "It is a GAME-CHANGER.",
            "In\nconclusion, it holds."),
    *breaks("nothing_is_worn_out", title="Unlock the power of water"),
]  # fmt: skip


def name(case: Case) -> str:
    shown = case.text or " ".join(map(str, (case.changes or case.context).items()))
    return f"{case.rule}-{shown.encode('unicode_escape').decode()[:40]}"


@pytest.mark.parametrize("case", [c for c in CASES if c.keeps], ids=name)
def test_a_rule_lets_pass(case: Case) -> None:
    assert case.findings() == []


@pytest.mark.parametrize("case", [c for c in CASES if not c.keeps], ids=name)
def test_a_rule_finds(case: Case) -> None:
    findings = case.findings()
    assert findings
    for finding in findings:
        assert finding.message
        assert str(finding) == f"{finding.rule}: {finding.message}"
        assert len(str(finding)) < 400
        assert "\n" not in str(finding)


def test_every_rule_is_tried_both_ways() -> None:
    every = {rule.__name__ for rule in house.RULES}
    assert {case.rule for case in CASES if case.keeps} == every
    assert {case.rule for case in CASES if not case.keeps} == every


def test_style_and_the_wanted_length_are_sent_back_but_refuse_nothing() -> None:
    context = replace(CONTEXT, words_min=200, words_max=300)
    findings = inspect(adding("Let us delve into it."), context)
    assert {finding.rule for finding in findings} == {"style", "length"}
    assert not any(finding.refuses for finding in findings)


@pytest.mark.parametrize(
    ("low", "high", "kept"), [(87, 100, True), (60, 72, True), (99, 120, False)]
)
def test_the_wanted_length_is_taken_with_a_tenth_of_patience(
    low: int, high: int, kept: bool
) -> None:
    made = replace(GOOD, markdown="word " * 79 + "[S1]")
    assert (inspect(made, replace(CONTEXT, words_min=low, words_max=high)) == []) == kept


def test_every_other_rule_refuses() -> None:
    for case in CASES:
        if case.keeps or case.rule == "nothing_is_worn_out" or case.context:
            continue
        assert all(finding.refuses for finding in case.findings()), case


def test_a_secret_is_not_shown_in_a_context() -> None:
    assert "hunter2" not in repr(CONTEXT)


def test_an_empty_manuscript_is_refused_and_nothing_raises() -> None:
    assert {"length", "tags", "citations"} <= refused(Manuscript("", "", (), ""))


# Hostile strings, from corpora


def attacks() -> list[str]:
    found: list[str] = []
    for file in sorted(ATTACKS.glob("*.json")):
        for texts in json.loads(file.read_text(encoding="utf-8")).values():
            found += texts
    return found


def test_every_known_injection_is_refused_with_the_link_and_image_it_brings() -> None:
    found = attacks()
    if not found:
        pytest.skip(f"NOT RUN: {ATTACKS} is not here, so no injection was tried")
    assert len(found) >= 150
    for text in found:
        hostile = f"{text} [more](https://evil.example/?q=1) ![x](https://evil.example/x.png)"
        made = mended(adding(hostile))
        assert {"links", "markup"} <= refused(made), text
        only_link = mended(adding(f"{text} [more](https://evil.example/)"))
        assert "links" in refused(only_link), text
        only_image = mended(adding(f"{text} ![x](https://one.example/a)"))
        assert "markup" in refused(only_image), text


def naughty() -> list[str]:
    if not NAUGHTY.is_file():
        pytest.skip(f"NOT RUN: {NAUGHTY} is not here, so no naughty string was tried")
    found: list[str] = json.loads(NAUGHTY.read_text(encoding="utf-8"))
    assert len(found) > 500
    return found


def hidden_in(manuscript: Manuscript) -> list[str]:
    every = (manuscript.title, manuscript.description, *manuscript.tags, manuscript.markdown)
    return [hex(ord(c)) for text in every for c in text if is_hidden(c)]


def test_no_naughty_string_makes_a_rule_fail_or_hides_after_mending() -> None:
    for text in naughty():
        bare = Manuscript(text, text, (text,), text)
        assert isinstance(inspect(bare, replace(CONTEXT, cites=False)), list)
        assert hidden_in(mended(bare)) == []
        made = replace(adding(text), title=f"On {text}", tags=(text, "x"))
        assert isinstance(inspect(made, CONTEXT), list)
        repaired = mended(made)
        assert hidden_in(repaired) == []
        assert isinstance(inspect(repaired, CONTEXT), list)
        assert isinstance(house.tags_from(text), tuple)


# Mending


def body(markdown: str, title: str = "A title") -> str:
    return mended(Manuscript(title, "", ("x",), markdown)).markdown


MENDED = {
    "citations in one pair of brackets": ("So [S1, S2].", "So [S1] [S2]."),
    "citations with other signs": ("So [s1; S2 & S3].", "So [S1] [S2] [S3]."),
    "a citation in small letters": ("So [s1] and [S2].", "So [S1] and [S2]."),
    "citations with spaces": ("So [ S1 ,S10 ].", "So [S1] [S10]."),
    "hidden characters": ("a\u200bb\u202ec\U000e0041d\x00e\ufefff", "abcdef"),
    "carriage returns": ("a\r\nb", "a\nb"),
    "space around": ("\n\na\n\n", "a"),
    "the title again": ("# A title\n\nText.", "Text."),
    "the title again in other type": ("## A\u00a0title\n\nText.", "Text."),
    "the title again later": ("Text.\n\n## A title", "Text.\n\n## A title"),
    "headings from the first level": ("# a\n\n## b\n\n# c", "## a\n\n### b\n\n## c"),
    "headings from the fourth level": ("#### a\n\n##### b", "## a\n\n### b"),
    "a level skipped": ("## a\n\n#### b\n\n## c", "## a\n\n### b\n\n## c"),
    "the deepest level": (
        "# a\n## b\n### c\n#### d\n##### e\n###### f",
        "## a\n### b\n#### c\n##### d\n###### e\n###### f",
    ),
    "a closed heading": ("## a ##", "## a"),
    "a heading that ends in a sharp": ("## Why C#\n\nText.", "## Why C#\n\nText."),
    "no heading": ("#hashtag\n####### seven", "#hashtag\n####### seven"),
    "comments in code": ("```\n# a\n### b\n```", "```\n# a\n### b\n```"),
    "comments in other code": ("~~~sh\n# a\n```\n# b\n~~~", "~~~sh\n# a\n```\n# b\n~~~"),
    "comments in longer fences": ("````\n```\n# a\n````\n\n# b", "````\n```\n# a\n````\n\n## b"),
    "code that begins the text": ("    code\n\nText.", "    code\n\nText."),
}


@pytest.mark.parametrize("kind", MENDED)
def test_what_has_one_right_fix_is_fixed(kind: str) -> None:
    before, after = MENDED[kind]
    assert body(before) == after
    assert body(after) == after


def test_titles_and_descriptions_become_one_line_without_mentions() -> None:
    made = mended(Manuscript(" On\n @ada's\u200b  sluices ", "By @ada\tand\n@bob", (), ""))
    assert made.title == "On ada's sluices"
    assert made.description == "By ada and bob"


def test_a_description_is_cut_at_a_word() -> None:
    made = mended(Manuscript("", "word " * 100, (), "")).description
    assert len(made) <= 300
    assert made.endswith("word…")
    assert mended(Manuscript("", "word " * 60, (), "")).description == ("word " * 60).strip()


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        (("Self-Hosting", "C++", "web dev"), ("selfhosting", "c", "webdev")),
        (("a", "b", "c", "d", "e"), ("a", "b", "c", "d")),
        (("A", "a", "#a", "日本", ""), ("a",)),
        (("x" * 50,), ("x" * 30,)),
        (("日本", "!"), ()),
    ],
)
def test_tags_are_letters_and_digits_and_at_most_four(
    tags: Sequence[str], expected: tuple[str, ...]
) -> None:
    assert mended(Manuscript("", "", tuple(tags), "")).tags == expected


def test_tags_come_from_a_text_where_nobody_gave_any() -> None:
    assert house.tags_from("Two valves and the reservoir, 日本 42") == ("reservoir", "valve", "two")
    assert house.tags_from("") == ()


ODD = st.lists(
    st.one_of(
        st.sampled_from(
            ["# ", "## ", "#### ", "###### ", "#", " #", "```", "~~~", "````\n", "\n", "\n\n",
             "\r\n", "    ", "\t", "> ", "- ", "1. ", "[S1]", "[s1, S2]", "[S1;[S2,S3]]", "A title",
             "@ada", "@", "\u200b", "\u202e", "\U000e0041", "\ufeff", "\x00", "\r", "===", "---",
             "<b>", "C#", " ##", "{{", "|", "\\", "`", "x", " "]
        ),
        st.text(max_size=3),
    ),
    max_size=25,
).map("".join)  # fmt: skip


@given(title=ODD, description=ODD, tags=st.lists(ODD, max_size=6), markdown=ODD)
@example("A title", "", [], "# A title\n    # code")
@example("@ada", "", [], "# ada\n\nText.")
@example("On\u200bit", "", [], "# Onit\n\nText.")
@example("", "", [], "## C# #")
@settings(max_examples=300)
def test_mending_twice_is_mending_once_and_nothing_hidden_is_left(
    title: str, description: str, tags: list[str], markdown: str
) -> None:
    once = mended(Manuscript(title, description, tuple(tags), markdown))
    assert hidden_in(once) == []
    assert mended(once) == once
    assert len(once.description) <= house.DESCRIPTION_MAX
    assert len(once.tags) <= house.TAGS_MAX


@given(ODD)
def test_no_text_makes_a_rule_fail(markdown: str) -> None:
    made = Manuscript(markdown, markdown, (markdown,), markdown)
    for finding in (*inspect(made, CONTEXT), *inspect(made, replace(CONTEXT, cites=False))):
        assert finding.message


def test_a_manuscript_and_a_context_are_values() -> None:
    for value in (GOOD, CONTEXT):
        with pytest.raises(AttributeError):
            setattr(value, fields(value)[0].name, "")
