"""
What a stranger puts into a page so that it goes out in ours: ways to reach him, orders to models.

Addresses without a scheme, telephone numbers, mail, wallets, packages to be installed; and the
sentences that tell a model what to do. All of it is looked for in text whose compatibility forms
were made plain.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import lru_cache

from daemon.desk.markdown import EMAIL, addresses_in

# Not all there are: main.py, Node.js, run.sh and "do.it" are no addresses. What shorteners and
# most of the abused registries end in is here.
_TLDS = (
    "com|net|org|io|dev|app|info|biz|shop|store|xyz|top|site|online|club|social|me|ai|co|example"
    "|icu|vip|click|live|win|bid|loan|fun|space|website|tech|cloud|news|blog|life|world|today|buzz"
    "|cyou|sbs|cfd|bond|quest|monster|bet|casino|poker|games|finance|money|exchange|agency"
    "|page|link|press|pro|mobi|asia|art|design|health|care|onion|eth|рф|онлайн|сайт"
    "|ru|cn|de|uk|eu|us|ca|fr|nl|se|ch|es|dk|fi|jp|kr|br|au|tv|fm|su|tk|ga|gq|ws|gg|ly|gl|gd|gy"
)
# These are words and endings of files as well: an address only where a path follows.
_WITH_PATH = "be|to|cc|cf|in|is|it|im|sh|pw|nu|id|pl|at"
_LABELS = r"(?<![\w@-])(?<!\w\.)(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.)+"
_DOMAIN = re.compile(
    rf"{_LABELS}(?:(?:{_TLDS})(?![\w@-]|\.\w|\()|(?:{_WITH_PATH})(?=/\w))", re.IGNORECASE
)
# In code logger.info and java.io are names; these are names of nothing else.
_DOMAIN_IN_CODE = re.compile(
    rf"{_LABELS}(?:(?:com|org|xyz|shop|site|online|biz|ru|cn|example)(?![\w@-]|\.\w|\()"
    rf"|(?:{_TLDS})(?=/|:\d))",
    re.IGNORECASE,
)
_FRAMEWORKS = frozenset(("asp.net", "vb.net", "ado.net", "ml.net"))
_HARMLESS = re.compile(
    r"(?:[\w.-]*\.)?example\.(?:com|org|net)|localhost|127(?:\.\d+){3}|0\.0\.0\.0|\[?::1\]?"
)
# How an address is written for people alone: evil[.]com, evil (dot) com, lure dot evil dot example.
_DOT = re.compile(r"(?<=\w) ?[\[({] ?(?:\.|dot|punkt|point|punto) ?[\])}] ?(?=\w)", re.IGNORECASE)
_AT = re.compile(r"(?<=\w) ?[\[({] ?(?:@|at|ät|arroba) ?[\])}] ?(?=\w)", re.IGNORECASE)
_DOTS = re.compile(r"(?<![\w-])[\w-]++(?: dot [\w-]++){2,}", re.IGNORECASE)
_HOST = re.compile(r"(?:\w+://)?(?:[^/@\s]*@)?(\[[0-9a-f:]+\]|[^/:?#\s]+)")
_PHONE = re.compile(
    r"(?<![\w.,/-])(?:"
    r"\+\d(?:[ ()./-]{0,2}\d){7,14}"
    # A national number begins with its zero and is set apart.
    r"|\(?0\d{2,4}\)?[ /-]\d{2,8}(?:[ -]\d{2,5}){0,3}(?<=\d\d)"
    r"|(?:1[ .-])?(?:\(\d{3}\) ?|\d{3}[ .-])\d{3}[ .-]\d{4}"
    r")(?![\w-]|[.,]\d)"
)
_CALLED = re.compile(
    r"\b(?:call|phone|tel|dial|whatsapp)\b[.:]?(?: (?:us|me|now|today|at|on))*:? ?"
    r"(?!\d{4}-\d\d-\d\d)(\d(?:[ ()-]{0,2}\d){6,14})(?!\w)",
    re.IGNORECASE,
)
_DIGITS_IN_PHONE = 9
_WALLET = re.compile(
    r"\b(?:bc1[a-z0-9]{25,}|0x[0-9a-fA-F]{40}"
    r"|(?=\w*[a-z])(?=\w*[A-Z])[13][1-9A-HJ-NP-Za-km-z]{25,34})\b"
)
# What fetches a package by its name, and everything behind it to the end of the command.
_INSTALLS = re.compile(
    r"(?<![\w-])(?:(?:pip3?|pipx|uv(?: pip| tool)?|poetry|pdm|conda|mamba|npm|pnpm|yarn|bun|gem"
    r"|cargo|composer|brew|apt|apt-get|dnf|yum|zypper|apk|snap|flatpak|choco|winget|scoop|helm)"
    r"(?: -[\w=/.-]+)* (?:install|i|add|require)|go (?:install|get)(?= \S*[./])"
    r"|npx|pnpx|bunx|uvx|pipx run|npm (?:exec|create|init)|(?:docker|podman) pull)"
    r"(?= )(?P<what>[^\n;|&<>(){}`]*)"
)
_PACKAGE = re.compile(r"@?[^\W_][\w.-]*(?:[/:][\w.-]+)*")
# Behind these options stands something else than a package.
_TAKES_VALUE = frozenset(("-r", "--requirement", "-c", "--constraint", "-e", "--editable", "-t"))
# Behind a package a sentence goes on so; npm install does other things.
_GOES_ON = frozenset(
    ("and", "or", "to", "before", "after", "first", "then", "now", "on", "in", "at", "for", "from",
     "with", "as")
)  # fmt: skip
_FILES = (".txt", ".toml", ".lock", ".json", ".yml", ".yaml", ".whl", ".gz", ".deb", ".rpm")
_ORDER = re.compile(
    r"\b(?:ignor(?:e|ing)|disregard(?:ing)?|forget(?:ting)?)\b(?: \w+){0,3}?"
    r" (?:previous|prior|above|earlier|preceding)(?: \w+){0,2}? (?:instruction|prompt|direction)s?"
    r"|\byou are now (?:a|an|the|in|my|no longer)\b"
    r"|\bas an (?:ai|artificial intelligence|llm)(?: language)? (?:model|assistant)\b"
    r"|\bsystem prompts?\b"
    r"|\b(?:(?:note|message) (?:to|for) (?:(?:every|all|any|the) )?"
    r"|(?:instructions? (?:to|for)|attention[,:]?) (?:every|all|any) )"
    r"(?:ai|llm|language)\b[ -]*(?:language )?(?:models?|agents?|assistants?|systems?)\b"
    r"|\b(?:do not|don't|never) (?:tell|inform|mention (?:this|it) to) the user\b",
    re.IGNORECASE,
)


def contacts_in(text: str) -> list[str]:
    """Telephone numbers, addresses of mail and wallets: whoever prints one sends readers there."""
    plain = _read_out(text)
    phones = [
        found[0]
        for found in _PHONE.finditer(plain)
        if len(digits := [c for c in found[0] if c.isdigit()]) >= _DIGITS_IN_PHONE
        and not {"0", "1"}.issuperset(digits)
    ]
    phones += [found[1] for found in _CALLED.finditer(plain)]
    # git@host is the name of a protocol.
    mail = [found[0] for found in EMAIL.finditer(plain) if not found[0].startswith("git@")]
    return [*phones, *(m for m in mail if not is_harmless(m)), *_WALLET.findall(plain)]


def order_in(text: str) -> str | None:
    """
    The words that tell a model what to do, or None.

    An article about prompt injection quotes such words honestly and loses those quotes: nothing in
    the words tells the two apart, and the loss is small beside an order that is obeyed.
    """
    plain = " ".join(unicodedata.normalize("NFKC", text).replace("’", "'").split())
    found = _ORDER.search(plain)
    return found[0] if found else None


def domains_in(text: str, *, code: bool = False) -> list[str]:
    """
    Names that are addresses though they have no scheme: shop.example, not main.py.

    Also where the dot is spelt: shop[.]example, shop (dot) example.
    """
    plain = _read_out(text)
    pattern = _DOMAIN_IN_CODE if code else _DOMAIN
    found = (match[0] for match in pattern.finditer(plain))
    return [name for name in found if name.casefold() not in _FRAMEWORKS and not is_harmless(name)]


def addresses_in_code(code: str) -> list[str]:
    """Every address in code, with a scheme or without."""
    whole = [found.rstrip("\\;|&,") for found in addresses_in(code)]
    return [a for a in whole if not is_harmless(a)] + [
        name for name in domains_in(code, code=True) if not any(name in a for a in whole)
    ]


def packages_in(text: str, *, code: bool = False) -> list[str]:
    """
    Names that a command would fetch and run: `httpx` of `pip install -U httpx[http2]`.

    Args:
        code: all behind the command are packages. In prose the first is, if it looks like one.
    """
    found: list[str] = []
    for command in _INSTALLS.finditer(unicodedata.normalize("NFKC", text)):
        words = command["what"].split()
        named: list[str] = []
        while words:
            word = words.pop(0)
            bare = word.strip("\"'“”‘’,.")
            if word in _TAKES_VALUE:
                words[:1] = []
            elif "://" not in bare and (name := _PACKAGE.match(bare)):
                if code or _looks_like_one(name[0], word, words):
                    named.append(name[0])
                if not code:
                    break
        found += (name for name in named if not name.endswith(_FILES))
    return found


def _looks_like_one(name: str, word: str, after: Sequence[str]) -> bool:
    """Whether a word behind `npm install` in prose is a package, and not what the command does."""
    if name.casefold() in _GOES_ON:
        return False
    last = not after or word[-1] in ",.:!?"
    return last or after[0] in _GOES_ON or re.search(r"[\d@/_.:-]", name) is not None


def leads_away(title: str, own: Collection[str]) -> bool:
    """
    Whether a title has a contact, a package to be installed, or an address that stands in none of
    its page's own names.
    """
    reach = [*domains_in(title), *addresses_in(title)]
    if contacts_in(title) or packages_in(title):
        return True
    return any(not stands(name, own) for name in reach)


def _read_out(text: str) -> str:
    """Text in its plain forms, with the dots and the at signs of addresses as themselves."""
    # The last is a dot to browsers, too, and halfwidth until it is made plain.
    plain = unicodedata.normalize("NFKC", text).replace("。", ".")
    plain = _AT.sub("@", _DOT.sub(".", plain))
    return _DOTS.sub(lambda name: re.sub(" dot ", ".", name[0], flags=re.IGNORECASE), plain)


def is_harmless(address: str) -> bool:
    """Whether an address is of this machine, or of those set apart for examples (RFC 2606)."""
    host = _HOST.match(address.rpartition("@")[2].casefold().removeprefix("mailto:"))
    return host is not None and _HARMLESS.fullmatch(host[1]) is not None


def stands(address: str, texts: Iterable[str]) -> bool:
    """Whether an address stands in one of these texts, and not within a longer name."""
    wanted = re.escape(unicodedata.normalize("NFKC", address).casefold())
    pattern = re.compile(rf"(?<![\w-]){wanted}(?![\w-]|\.\w)")
    return any(pattern.search(_folded(text)) for text in texts)


def hosts(urls: Collection[str]) -> Iterator[str]:
    """The hosts of addresses, as texts that a name may stand in."""
    for url in urls:
        if found := _HOST.match(url):
            yield found[1].casefold().removeprefix("www.")


@lru_cache(maxsize=64)
def _folded(text: str) -> str:
    return _read_out(text).casefold()
