"""A card is drawn from a title, and never shows what no reader could read."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from daemon.desk import card
from daemon.desk.card import (
    BYTES_MAX,
    HEIGHT,
    INK,
    PALETTES,
    TITLE_CHARS_MAX,
    WAVES,
    WIDTH,
    Colour,
    draw,
    tone,
)

SITE = "The Sluice"
OURS = str(card._FONT)


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine without any font but ours."""
    monkeypatch.setattr(card, "_SYSTEM_FONTS", ())
    card._families.cache_clear()
    yield
    card._families.cache_clear()


def image(content: bytes) -> Image.Image:
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert len(content) < BYTES_MAX
    picture = Image.open(io.BytesIO(content))
    picture.load()
    assert picture.size == (WIDTH, HEIGHT)
    return picture


MARKS = "\u0301\u0336"  # They stand where they like.
TITLES = [
    "", " ", "R", "Rust", "Why SQLite loses three debits in four, and the pragma that stops it",
    "word " * 40, "W" * 200, "i" * 200, "Donaudampfschifffahrtselektrizitätenhauptbetriebswerk",
    "https://one.example/" + "a-" * 90, "x" * 100_000, "日本語の題名" * 30, "한국어 제목", "ไทย",
    "हिन्दी", "كيف تعمل بوابات السدود", "איך עובדים סכרים: SQLite 3.45", "Как работает шлюз", "🌊🌊",
    "a 🌊 b", "👩‍👩‍👧‍👦 family", "e\u0301 x\u0323\u0301" + "\u0336" * 150, "\u0301",
    "a\x00b\x1b[31m\u202eabc", "\ud800", "\U0010ffff", "two\nlines", "<b>&amp;</b>",
    "– — … “ ” ™ €", "\u3000\u00a0\u200b",
]  # fmt: skip


@pytest.mark.parametrize("title", TITLES)
def test_every_title_makes_a_card_that_a_platform_takes(title: str) -> None:
    image(draw(title, SITE, "r1"))
    image(draw("A title", title, "r1"))


@settings(max_examples=15, deadline=None)
@given(st.text(max_size=250), st.text(max_size=60), st.text(max_size=12))
def test_no_text_is_too_odd(title: str, site: str, seed: str) -> None:
    image(draw(title, site, seed))


def test_the_same_input_gives_the_same_bytes_in_another_process_too() -> None:
    code = (
        "import hashlib; from daemon.desk.card import draw;"
        "print(hashlib.sha256(draw('A title – of mine', 'The Sluice', 'r1')).hexdigest())"
    )
    shown = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=Path(__file__).parents[1],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(shown) == 1
    assert draw("A title", SITE, "r1") == draw("A title", SITE, "r1")


def test_title_name_and_seed_are_all_seen() -> None:
    shown = {
        draw("A title", SITE, "r1"),
        draw("B title", SITE, "r1"),
        draw("A title", "Another", "r1"),
        draw("A title", SITE, "r2"),
    }
    assert len(shown) == 4


def test_seeds_use_every_palette() -> None:
    corners = {image(draw("", "", f"r{n}")).getpixel((0, 0)) for n in range(40)}
    assert corners == {ground for ground, _ in PALETTES}


# Legible


def luminance(colour: Colour) -> float:
    """Relative luminance, WCAG 2.2."""
    linear = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in
              (channel / 255 for channel in colour))  # fmt: skip
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("palette", PALETTES)
def test_the_letters_stand_out_from_everything_they_may_stand_on(
    palette: tuple[Colour, Colour],
) -> None:
    for step in range(WAVES + 1):
        contrast = (luminance(INK) + 0.05) / (luminance(tone(*palette, step)) + 0.05)
        # AAA on the ground, where the title stands; AA for small letters on every wave.
        assert contrast >= (7 if step <= 1 else 4.5), (palette, step, contrast)


def ink_box(content: bytes) -> tuple[int, int, int, int]:
    """What the letters cover."""
    red = image(content).convert("RGB").getchannel("R")
    box = red.point(lambda value: 255 if value > 225 else 0).getbbox()
    assert box is not None
    return box


@pytest.mark.parametrize(
    "title", [t for t in TITLES if t.strip() and t.isprintable() and not {*t} & {*MARKS}]
)
def test_no_letter_leaves_the_margins(title: str) -> None:
    left, top, right, bottom = ink_box(draw(title, SITE, "r1"))
    cut = (HEIGHT - WIDTH * 420 // 1000) // 2
    assert left >= card._MARGIN - 8
    assert right <= WIDTH - card._MARGIN + 8
    # Nor what Dev.to shows of a cover.
    assert top >= cut
    assert bottom <= HEIGHT - cut


def block(title: str) -> card._Block:
    chosen = card._legible(title)
    assert chosen is not None
    return card._fitted(*chosen)


def test_a_short_title_is_large_and_a_long_one_is_whole() -> None:
    assert block("Rust").size == card._TITLE_SIZES[0]
    long = " ".join(["reservoirs and sluices"] * 8)
    assert len(long) <= TITLE_CHARS_MAX
    assert " ".join(block(long).lines) == long


@pytest.mark.parametrize("word", ["Internationalisation", "Kraftfahrzeughaftpflichtversicherung"])
def test_a_word_stays_whole_where_smaller_letters_keep_it_so(word: str) -> None:
    assert word in block(word).lines
    assert word in block(f"{word} now").lines


def test_lines_are_about_equally_long() -> None:
    lines = block("Why SQLite loses three debits in four, and the pragma that stops it").lines
    lengths = [len(line) for line in lines]
    assert min(lengths) > max(lengths) / 2


def test_what_is_too_long_says_that_it_goes_on() -> None:
    assert block("W" * 200).lines[-1].endswith("W…")


# Other scripts


def test_no_letter_becomes_a_box(bare: None) -> None:
    """What no font has takes the place of the title by the publication's name."""
    for title in ("日本語の題名", "한국어", "سلام", "हिन्दी", "Rust と水"):
        assert draw(title, SITE, "r1") == draw(SITE, "", "r1")


@pytest.mark.parametrize(
    "title", ["Water 🌊 flows", "Water\ufe0f flows 👩‍👧", "😀 Water flows ☃🏽"]
)
def test_a_pictograph_that_no_font_has_is_left_out_of_the_title(bare: None, title: str) -> None:
    assert draw(title, SITE, "r1") == draw("Water flows", SITE, "r1")


@pytest.mark.parametrize("title", ["Über Größe", "Žluťoučký kůň", "Đường ống", "Ж ω", "“–…” €"])
def test_latin_greek_and_cyrillic_need_no_font_of_the_system(bare: None, title: str) -> None:
    chosen = card._legible(title)
    assert chosen == (title, card._Family(OURS))


def test_two_spellings_of_one_letter_look_the_same() -> None:
    assert draw("Cafe\u0301", SITE, "r1") == draw("Café", SITE, "r1")


def test_letters_that_join_are_left_out_where_they_cannot_be_laid_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(card, "_can_shape", lambda: False)
    assert draw("سلام", SITE, "r1") == draw(SITE, "", "r1")


def test_a_title_from_the_right_stands_at_the_right() -> None:
    if card._legible("שלום") is None:
        pytest.skip("NOT RUN: no font of this system has Hebrew")
    assert ink_box(draw("שלום", "", "r1"))[2] > WIDTH - card._MARGIN - 20
    assert ink_box(draw("Hello", "", "r1"))[0] < card._MARGIN + 20


def test_han_breaks_anywhere_but_not_before_a_full_stop() -> None:
    pieces = card._pieces("水は流れる。Rust と、水")
    assert "".join(pieces) == "水は流れる。Rust と、水"
    assert "る。" in pieces
    assert "Rust " in pieces


def test_a_line_ends_after_a_dash_but_within_no_number() -> None:
    assert card._pieces("self-hosting, 2–18 May 2026/27 – all") == [
        "self-", "hosting, ", "2–18 ", "May ", "2026/27 – ", "all",
    ]  # fmt: skip


def test_nothing_is_loaded_before_a_card_is_drawn() -> None:
    code = "import sys, json, daemon.desk.card; print(json.dumps('PIL' in sys.modules))"
    shown = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(shown.stdout) is False
