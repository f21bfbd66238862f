"""
Real servers by others, run on loopback.

    prism    Forem's own OpenAPI document, served by Prism (forem-prism.sh)
    pds      a Bluesky PDS, with or without its AppView (bluesky-pds.sh, bluesky-pds.mjs)

`make peers` installs them (install.sh; install.py says where). Where one cannot be had, the tests
that want it say NOT RUN and why.
"""
