"""
Names for runs: they sort by time, read aloud, and fit in the closing line of an article.

Everything below a run is named after it: attempts `RUN.1`, `RUN.2`, their holds `hold:RUN.1`.
"""

from __future__ import annotations

import random
from datetime import datetime

# Crockford's base 32 in lower case: no letter that reads as a digit.
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def run_id(at: datetime, chance: random.Random) -> str:
    """Seven characters of seconds, good until the year 3058, and four of chance."""
    seconds = int(at.timestamp())
    stamp = "".join(_ALPHABET[seconds >> (5 * place) & 31] for place in range(6, -1, -1))
    return f"r{stamp}{''.join(chance.choices(_ALPHABET, k=4))}"
