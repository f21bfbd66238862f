"""
Who reads: views and reactions of a post, drawn from distributions that are stated here. Pure.

These are assumptions to try settings against, not measurements. A post's views over its life are
log-normal: half of the posts stay below the median, a few find many times as many readers. They
come in over the days after publication, halving every `half_life_days`; a day's views are Poisson
around that, its reactions Poisson around a share of the day's views. How good a text is plays no
part, nor does the tier that paid for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

# What a thousand views leave behind, per unit of PENSTOCK_RATES. The same people are assumed to
# see a post on each platform.
PER_1000_VIEWS: Mapping[str, float] = {
    "devto.view": 1000.0,
    "devto.reaction": 20.0,
    "devto.comment": 3.0,
    "bluesky.like": 10.0,
    "bluesky.repost": 2.0,
    "bluesky.reply": 1.0,
    "bluesky.quote": 0.5,
}
# Days after which nobody is counted any more: with three days' half-life, one view in a thousand.
DAYS_READ = 30
# The tail has no end, but the number of people has.
VIEWS_MAX = 1_000_000.0


@dataclass(frozen=True, slots=True)
class Audience:
    """
    How many readers posts find.

    Args:
        views_median: of a post's whole life, on each platform.
        views_sigma: spread of the logarithm; at 1.1 the mean is 1.8 times the median and one post
            in a hundred has thirteen times the median.
        half_life_days: days in which half of the views that are still to come do come.
    """

    name: str
    views_median: float
    views_sigma: float
    half_life_days: float = 3.0

    @property
    def views_mean(self) -> float:
        """Views of a post on average; the tail pulls it above the median."""
        return self.views_median * math.exp(self.views_sigma**2 / 2)

    def __str__(self) -> str:
        if not self.views_median:
            return f"{self.name}: nobody"
        return (
            f"{self.name}: half of the posts find up to {self.views_median:g} readers, the average"
            f" {self.views_mean:.0f}"
        )


AUDIENCES: Mapping[str, Audience] = {
    audience.name: audience
    for audience in (
        Audience("none", 0, 0),
        Audience("quiet", 25, 1.0),
        Audience("steady", 120, 1.1),
        Audience("lucky", 300, 1.5),
    )
}
AUDIENCE_DEFAULT = "steady"


def engagement(
    audience: Audience, platforms: Sequence[str], chance: Random
) -> list[dict[str, int]]:
    """
    A post's counts per unit, such as `devto.view`, by day; the first day is that of publication.
    """
    # Every platform is drawn for, so that the draws of one do not depend on another being there.
    drawn = chance.lognormvariate(0, audience.views_sigma)
    views_life = min(drawn * audience.views_median, VIEWS_MAX)
    kept = 0.5 ** (1 / audience.half_life_days)
    days = []
    for day in range(DAYS_READ):
        views = _poisson(views_life * (1 - kept) * kept**day, chance)
        counts = {
            unit: views if unit.endswith(".view") else _poisson(views * share / 1000, chance)
            for unit, share in PER_1000_VIEWS.items()
        }
        days.append({u: n for u, n in counts.items() if n and u.partition(".")[0] in platforms})
    return days


def _poisson(mean: float, chance: Random) -> int:
    """A count around a mean: Knuth's product of uniforms, and the normal shape above 30."""
    if mean > 30:
        return max(0, round(chance.gauss(mean, math.sqrt(mean))))
    count, product, floor = 0, chance.random(), math.exp(-mean)
    while product > floor:
        product *= chance.random()
        count += 1
    return count
