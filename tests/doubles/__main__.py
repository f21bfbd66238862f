"""
Run one double in the foreground until SIGTERM.

    python -m tests.doubles model --port 0 [--key KEY] [--price MODEL=INPUT,CACHED,OUTPUT]…
        [--worst obedient|fabricator] [--position WHERE] [--seed N]
    python -m tests.doubles web --root DIR [--rewrite FROM]

One JSON line, {"url": …}, says that it is ready. Prices are micro-credits per million tokens.
"""

from __future__ import annotations

import argparse
import json
import signal
from pathlib import Path

from tests.doubles import worst
from tests.doubles.model import ModelDouble, Prices
from tests.doubles.web import SiteDouble
from tests.doubles.wire import Double, serve

ENDINGS = (signal.SIGTERM, signal.SIGINT)


def main() -> None:
    """Serve what the command line asks for, and return when told to end."""
    options = _parser().parse_args()
    # Blocked before the server's thread starts, so that only sigwait sees them.
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDINGS)
    with serve(_double(options), port=options.port) as at:
        print(json.dumps({"url": at.url}), flush=True)
        signal.sigwait(ENDINGS)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.doubles")
    kinds = parser.add_subparsers(dest="kind", required=True)
    model = kinds.add_parser("model", help="an OpenAI-compatible endpoint")
    model.add_argument("--key", default="test-key")
    model.add_argument("--price", action="append", default=[], type=_price)
    model.add_argument("--worst", choices=("obedient", "fabricator"), help="how it behaves")
    model.add_argument(
        "--position", choices=worst.POSITIONS, default="own paragraph",
        help="where the obedient one writes what its pages tell it",
    )  # fmt: skip
    model.add_argument("--seed", type=int, default=7, help="of what the fabricator invents")
    web = kinds.add_parser("web", help="a web site")
    web.add_argument("--root", type=Path, required=True)
    web.add_argument("--rewrite", metavar="FROM", help="text that stands for this site's address")
    for kind in (model, web):
        kind.add_argument("--port", type=int, default=0)
    return parser


def _price(text: str) -> tuple[str, Prices]:
    model, _, amounts = text.rpartition("=")
    fresh, cached, output = (int(amount) for amount in amounts.split(","))
    return model, (fresh, cached, output)


def _double(options: argparse.Namespace) -> Double:
    if options.kind == "model":
        model = ModelDouble(dict(options.price), key=options.key)
        _misled(model, options)
        return model
    rewrite = (options.rewrite, "{self}") if options.rewrite else None
    return SiteDouble(options.root, rewrite=rewrite)


def _misled(model: ModelDouble, options: argparse.Namespace) -> None:
    match options.worst:
        case "obedient":
            orders = worst.own_orders(options.key, "You are the writer of a small publication.")
            tries = [worst.Attempt(order, order.payload, options.position) for order in orders]
            worst.Obedient(tries, turns=True).join(model)
        case "fabricator":
            drafts = tuple(worst.FALSE_DRAFTS.items())
            worst.Fabricator(options.seed, worst.FALSE_CLAIMS, drafts).join(model)


if __name__ == "__main__":
    main()
