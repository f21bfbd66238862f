"""
Destinations.

    port     what a destination is: Post in, Intent, Receipt out
    errors   Transient, Barred, Rejected, OutcomeUnknown
    clock    what a destination is told of time
    disk     files that survive a power cut, on any mount
    outbox   Markdown, HTML and an Atom feed in a folder
    devto    Dev.to, draft first
    bluesky  Bluesky, through parts of its SDK
    plugin   what a destination of another distribution is given
    testing  the laws of a destination as tests, for theirs as for ours

Imports nothing else of ours. A new destination is one file and one line in `daemon.app`, or an
entry point of another distribution (docs/publishers.md).
"""
