"""
The outside world, small enough to fit on loopback.

wire      a double's port (Request in, Answer out), the socket server, the in-process transport
model     an OpenAI-compatible endpoint that keeps its own bill and misbehaves on request
author    what that model writes: plans, notes, drafts, reviews, announcements
web       a web site: files, pages, validators, redirects, bodies without an end

Nothing here knows the product; `python -m tests.doubles` runs one in the foreground.
"""
