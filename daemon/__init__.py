"""
The process that lives: it decides, researches, writes, publishes and settles.

docs/ARCHITECTURE.md has the map, and the reasons.
"""

__version__ = "0.1.0"
