"""Tests; whatever they start is started as from a terminal."""

import signal

# A job in the background ignores SIGINT, and so would every program that a test interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
