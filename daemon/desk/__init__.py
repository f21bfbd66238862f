"""
What code checks before anything goes out. It has the last word.

    evidence  quotes and numbers against stored text
    house     the rules an article must keep, each a named check
"""
