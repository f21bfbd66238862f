"""
What the settings would do, before a credit is spent: the real governor and the real books on
virtual time, with drawn requests and drawn readers in place of a provider and the world.

    audience  who reads: the stated distributions that views and reactions are drawn from (pure)
    walk      day after day: slots, decisions, runs, income, in a ledger that is thrown away
    periods   days put together, and what they come to in sentences (pure)
    picture   the same as an SVG (pure)
"""
