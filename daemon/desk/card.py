"""
The picture of an article, for the card that a link to it becomes elsewhere.

Drawn here and from nothing but its title, the publication's name and a seed, so that no picture
is ever fetched, bought or borrowed. The ground is still water seen through a gate: its colour, and
how its waves run, come from the seed.
"""

from __future__ import annotations

import hashlib
import io
import math
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from daemon.sources.text import is_hidden

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

# What https://ogp.me consumers crop least: 1.91 to 1.
WIDTH, HEIGHT = 1200, 630
# Bluesky takes thumbnails up to 1,000,000 bytes (facts/platform-apis.md).
BYTES_MAX = 900_000
TITLE_CHARS_MAX = 200

Colour = tuple[int, int, int]
INK: Colour = (250, 246, 236)
# Ground, and the colour the waves run towards. A test holds INK legible on all of them.
PALETTES: tuple[tuple[Colour, Colour], ...] = (
    ((16, 42, 67), (31, 110, 140)),  # deep water
    ((19, 51, 48), (46, 120, 104)),  # moss
    ((52, 28, 58), (132, 72, 122)),  # heather
    ((58, 30, 26), (150, 78, 52)),  # brick
    ((34, 38, 48), (88, 100, 122)),  # slate
    ((28, 32, 74), (84, 88, 168)),  # dusk
)
WAVES = 4
# How far towards the second colour the nearest wave has gone.
TIDE = 0.8

_MARGIN = 88
_TITLE_TOP, _TITLE_HEIGHT = 92, 350
_TITLE_SIZES = range(92, 35, -4)
_LINES_MAX = 6
_BREAKING_SIZE = 52
_LEADING = 1.22
# Dev.to shows 1000 by 420 of a cover, cut above and below: 63 pixels of this one.
_SITE_BASE, _SITE_SIZE = HEIGHT - 90, 34
# Drawn so many times larger and reduced, which smooths the edges of the waves.
_SCALE = 2

# Noto Serif SemiBold: the latin, latin-ext (U+0100 to 024F, 1E00 to 1EFF, 2000 to 22FF), cyrillic,
# greek and vietnamese files of @fontsource/noto-serif 5.3.0, merged by fonttools without hinting.
# 68 kB; SIL OFL 1.1 (beside it), no reserved name. It is here because Pillow's own
# font knows ASCII only, and because a card should not depend on what a server has installed.
_FONT = Path(__file__).parent / "NotoSerif-SemiBold.woff"
# For other scripts, if the system has them; Pillow looks in the usual folders.
_SYSTEM_FONTS = (
    "NotoSerifCJK-Bold.ttc", "NotoSansCJK-Bold.ttc", "NotoSansCJK-Regular.ttc",
    "NotoNaskhArabic-Bold.ttf", "NotoSansArabic-Bold.ttf", "NotoSerifHebrew-Bold.ttf",
    "NotoSansHebrew-Bold.ttf", "NotoSerifDevanagari-Bold.ttf", "NotoSansDevanagari-Bold.ttf",
    "NotoSerifThai-Bold.ttf", "NotoSansThai-Bold.ttf", "DejaVuSerif-Bold.ttf",
    "DejaVuSans-Bold.ttf", "FreeSerifBold.ttf", "wqy-zenhei.ttc",
)  # fmt: skip
_LACKING = "\U0010ffff"
# Kana, Han and Hangul, and their punctuation: a line breaks anywhere but before these.
_WIDE = re.compile(
    "[\u3001-\u30ff\uff01-\uff60\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]"
)
_SPAN = re.compile(r"\d[-–/]\Z")
_NOT_FIRST = frozenset(
    "、。，．・：；！？）」』】〕》〉ー々ぁぃぅぇぉっゃゅょァィゥェォッャュョ,.;:!?)"
)


def draw(title: str, site: str, seed: str) -> bytes:
    """
    A card of WIDTH by HEIGHT pixels, as PNG.

    The same bytes for the same input on the same machine: other scripts than Latin, Greek and
    Cyrillic are drawn in fonts that the system may or may not have. A title that no font here can
    show in full, pictographs aside, is left out, and the publication's name takes its place.
    It takes about a tenth of a second of one core: not on an event loop.

    Args:
        title: cut at TITLE_CHARS_MAX.
        site: the publication's name, on one line.
        seed: such as the run's id; it chooses colours and waves.
    Returns:
        Less than BYTES_MAX bytes.
    """
    from PIL import Image, ImageDraw

    chance = _chances(seed)
    ground, tide = PALETTES[int(next(chance) * len(PALETTES))]
    image = Image.new("RGB", (WIDTH * _SCALE, HEIGHT * _SCALE), ground)
    pen = ImageDraw.Draw(image)
    for step in range(1, WAVES + 1):
        level = HEIGHT * (0.56 + 0.105 * step) + 24 * next(chance)
        pen.polygon(_wave(level, chance), fill=tone(ground, tide, step))
    image = image.resize((WIDTH, HEIGHT), Image.Resampling.BOX)
    pen = ImageDraw.Draw(image)
    if _draw_title(pen, title):
        _draw_site(pen, site)
    else:
        _draw_title(pen, site)
    return _png(image)


def tone(ground: Colour, tide: Colour, step: int) -> Colour:
    """The colour of a wave; step 0 is the ground, WAVES the nearest wave."""
    share = TIDE * step / WAVES
    red, green, blue = (
        round(a + (b - a) * share) for a, b in zip(ground, tide, strict=True)
    )  # fmt: skip
    return red, green, blue


def _chances(seed: str) -> Iterator[float]:
    """Numbers from 0 up to 1 that depend on the seed only."""
    block = 0
    while True:
        digest = hashlib.sha256(f"{block}:{seed}".encode("utf-8", "replace")).digest()
        for place in range(0, len(digest), 4):
            yield int.from_bytes(digest[place : place + 4]) / 2**32
        block += 1


def _wave(level: float, chance: Iterator[float]) -> list[tuple[float, float]]:
    """The outline of water below a line of two swells, in enlarged pixels."""
    swells = [
        (10 + 18 * next(chance), 1.1 + 0.9 * next(chance), math.tau * next(chance)),
        (3 + 7 * next(chance), 2.3 + 1.4 * next(chance), math.tau * next(chance)),
    ]
    line = [
        (
            x * _SCALE,
            _SCALE
            * (level + sum(h * math.sin(math.tau * n * x / WIDTH + p) for h, n, p in swells)),
        )
        for x in range(0, WIDTH + 1, 4)
    ]
    return [*line, (WIDTH * _SCALE, HEIGHT * _SCALE), (0, HEIGHT * _SCALE)]


def _draw_title(pen: ImageDraw.ImageDraw, title: str) -> bool:
    """Whether it could be shown."""
    chosen = _legible(title)
    if chosen is None:
        return False
    text, family = chosen
    if len(text) > TITLE_CHARS_MAX:
        text = text[: TITLE_CHARS_MAX - 1].rstrip() + family.ellipsis()
    block = _fitted(text, family)
    from_right = _is_rtl(text)
    for number, line in enumerate(block.lines):
        pen.text(
            (WIDTH - _MARGIN if from_right else _MARGIN, _TITLE_TOP + number * block.leading),
            line,
            font=family.at(block.size),
            fill=INK,
            anchor="ra" if from_right else "la",
        )
    return True


def _draw_site(pen: ImageDraw.ImageDraw, site: str) -> None:
    chosen = _legible(site)
    if chosen is None:
        return
    text, family = chosen
    font = family.at(_SITE_SIZE)
    room = WIDTH - 2 * _MARGIN
    if font.getlength(text) > room:
        text = _shortened(text, family, font, room)
    from_right = _is_rtl(text)
    x = WIDTH - _MARGIN if from_right else _MARGIN
    pen.text((x, _SITE_BASE), text, font=font, fill=INK, anchor="rs" if from_right else "ls")


# Fonts


@dataclass(frozen=True, slots=True)
class _Family:
    """One font file at any size."""

    file: str

    def at(self, size: int) -> ImageFont.FreeTypeFont:
        return _font(self.file, size)

    def has(self, text: str) -> bool:
        """Whether it has a glyph for each character, and we can lay them out."""
        if _needs_shaping(text) and not _can_shape():
            return False
        return all(_has_glyph(self.file, character) for character in set(text) - {" "})

    def ellipsis(self) -> str:
        return "…" if self.has("…") else ""


@cache
def _families() -> tuple[_Family, ...]:
    """Our own font, then what the system has of the others."""
    return (_Family(str(_FONT)), *(_Family(f) for f in _SYSTEM_FONTS if _is_installed(f)))


def _is_installed(file: str) -> bool:
    try:
        _font(file, _SITE_SIZE)
    except OSError:
        return False
    return True


@cache
def _font(file: str, size: int) -> ImageFont.FreeTypeFont:
    from PIL import ImageFont

    return ImageFont.truetype(file, size)


@cache
def _plain_font(file: str) -> ImageFont.FreeTypeFont:
    """Without shaping, which would put a dotted circle under a mark that stands alone."""
    from PIL import ImageFont

    return ImageFont.truetype(file, 32, layout_engine=ImageFont.Layout.BASIC)


def _has_glyph(file: str, character: str) -> bool:
    """Pillow does not tell, so the picture is compared with that of a character nobody has."""
    font = _plain_font(file)
    lacking, shown = font.getmask(_LACKING), font.getmask(character)
    return (shown.size, bytes(shown)) != (lacking.size, bytes(lacking))


@cache
def _can_shape() -> bool:
    from PIL import features

    return bool(features.check_feature("raqm") and features.check_feature("fribidi"))


def _needs_shaping(text: str) -> bool:
    """Whether letters run from the right, join, or carry marks that must be placed."""
    return any(
        unicodedata.bidirectional(c) in ("R", "AL", "AN") or unicodedata.category(c)[0] == "M"
        for c in text
    )


def _is_rtl(text: str) -> bool:
    """The direction of the first character that has one."""
    strong = (unicodedata.bidirectional(c) for c in text)
    return next((s for s in strong if s in ("L", "R", "AL")), "L") != "L"


def _legible(text: str) -> tuple[str, _Family] | None:
    """The text as it can be shown, and in what; None where something of it could not."""
    # A title of a million characters is not worth a look at each of them.
    whole = " ".join(unicodedata.normalize("NFC", text[: 4 * TITLE_CHARS_MAX]).split())
    whole = " ".join("".join(c for c in whole if not is_hidden(c)).split())
    without_pictures = " ".join("".join(c for c in whole if not _is_pictograph(c)).split())
    for family in _families():
        for wanted in (whole, without_pictures):
            if wanted and family.has(wanted):
                return wanted, family
    return None


def _is_pictograph(character: str) -> bool:
    """Emoji and other signs that a title can do without."""
    return unicodedata.category(character) in ("So", "Sk") or "\ufe00" <= character <= "\ufe0f"


# Lines


@dataclass(frozen=True, slots=True)
class _Block:
    lines: list[str]
    size: int
    leading: int


def _fitted(text: str, family: _Family) -> _Block:
    """The text as large as it fits, its lines about equally long."""
    room = WIDTH - 2 * _MARGIN
    pieces = _pieces(text)
    longest = max((piece.strip() for piece in pieces), key=family.at(_TITLE_SIZES[-1]).getlength)
    for size in _TITLE_SIZES:
        font, leading = family.at(size), round(size * _LEADING)
        lines = _wrapped(pieces, font, room)
        lines_max = min(_LINES_MAX, _TITLE_HEIGHT // leading)
        # Smaller letters are better than a broken word, down to where they are not.
        whole = font.getlength(longest) <= room or size <= _BREAKING_SIZE
        if whole and len(lines) <= lines_max:
            return _Block(_balanced(pieces, font, room, len(lines)), size, leading)
    # Wide letters, at the smallest size: what does not fit is cut.
    kept = lines[:lines_max]
    return _Block([*kept[:-1], _shortened(kept[-1], family, font, room)], size, leading)


def _shortened(line: str, family: _Family, font: ImageFont.FreeTypeFont, room: int) -> str:
    """A line that says that it goes on, and fits."""
    while line and font.getlength(line + family.ellipsis()) > room:
        line = line[:-1].rstrip()
    return line + family.ellipsis()


def _balanced(
    pieces: Sequence[str], font: ImageFont.FreeTypeFont, room: int, count: int
) -> list[str]:
    """The narrowest lines of the same number, so that no last line has one word."""
    # No narrower than the widest piece, which would break, unless it is broken already.
    widest = math.ceil(max(font.getlength(piece.strip()) for piece in pieces))
    narrow, wide = max(room // 2, widest if widest <= room else 0), room
    while wide - narrow > 8:
        middle = (narrow + wide) // 2
        lines = _wrapped(pieces, font, middle)
        if len(lines) == count and all(font.getlength(line) <= middle for line in lines):
            wide = middle
        else:
            narrow = middle
    return _wrapped(pieces, font, wide)


def _wrapped(pieces: Sequence[str], font: ImageFont.FreeTypeFont, room: int) -> list[str]:
    """Lines no wider than the room; a piece that is wider on its own is broken."""
    lines, line = [], ""
    for piece in pieces:
        if font.getlength((line + piece).strip()) <= room:
            line += piece
            continue
        lines.append(line)
        line = ""
        for cluster in _clusters(piece):
            if line and font.getlength((line + cluster).strip()) > room:
                lines.append(line)
                line = ""
            line += cluster
    return [line.strip() for line in [*lines, line] if line.strip()]


def _pieces(text: str) -> list[str]:
    """What a line may end after: a word with its space, or a character of East Asia."""
    pieces: list[str] = []
    for cluster in _clusters(text):
        joins = pieces and not (
            # A dash between spaces ends a line and does not begin one; 2–18 is one number.
            (
                pieces[-1].endswith((" ", "-", "–", "—", "/"))
                and cluster not in "–— "
                and not (cluster.isdigit() and _SPAN.search(pieces[-1]))
            )
            or (cluster not in _NOT_FIRST and cluster != " " and _breaks(pieces[-1][-1], cluster))
        )
        if joins:
            pieces[-1] += cluster
        else:
            pieces.append(cluster)
    return pieces


def _breaks(before: str, after: str) -> bool:
    return bool(_WIDE.match(before) or _WIDE.match(after))


def _clusters(text: str) -> list[str]:
    """Characters together with the marks that stand on them."""
    clusters: list[str] = []
    for character in text:
        if clusters and unicodedata.category(character)[0] == "M":
            clusters[-1] += character
        else:
            clusters.append(character)
    return clusters


def _png(image: Image.Image) -> bytes:
    """The picture's bytes; six colours and their edges are far below the bound."""
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=4)
    content = out.getvalue()
    assert len(content) < BYTES_MAX, len(content)
    return content
