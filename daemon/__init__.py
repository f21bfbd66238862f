"""
The process that lives: it decides, researches, writes, publishes and settles.

    app         wires the parts; the one place that names concrete classes
    cycle       one run, start to finish
    cadence     which slots a cron expression names (pure)
    governor    books and policy to a pace (pure)
    newsroom    how a run comes to its text
    proof       what a text is held against: the desk's rules on a run's own evidence
    announcing  the posts that announce an article
    press       publications: intent, effect, receipt, and taking them back
    whereabouts which destinations hold an article, and its address
    drafts      what waits for a person
    engagement  counts to income, by the rate card
    revenue/    sources of real money
    alerts      what a person must know
    plugins     destinations of other distributions
    steps       journaled steps, each done once
    journal     runs, steps, decisions, evidence, publications
    books       transactions for coroutines
    look        what the governor needs, gathered
    estimate    what a run should cost (pure)
    options     every setting, side by side
    settings    the environment, read once
    tls         whom HTTPS clients trust
    clock       the only source of time
    crew/       researcher, writer, editor, digest and their prompts
    desk/       what code checks before anything goes out
    inference/  the ladder, prices, the meter and the chat adapter
    sources/    feeds, pages, the guarded fetcher, the archive
    cli/        the commands
    migrations/ Alembic, by hand
"""

__version__ = "0.1.0"
