"""
The outside world, small enough to fit on loopback.

wire      a double's port (Request in, Answer out), the socket server, the in-process transport
model     an OpenAI-compatible endpoint that keeps its own bill and misbehaves on request
author    what that model writes: plans, notes, drafts, reviews, announcements
web       a web site: files, pages, validators, redirects, bodies without an end
worst     writers and editors that obey whatever they read, or make things up
search    a search engine
devto     Dev.to with its drafts, throttles and late listings
stripe    Stripe's balance transactions
bluesky   a Bluesky server with its sessions and repositories

Nothing here knows the product; `python -m tests.doubles` runs one in the foreground.
"""
