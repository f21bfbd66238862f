"""
What code checks before anything goes out. It has the last word.

    evidence      quotes against stored text
    figures       numbers, read one way however they are written
    manuscript    what is judged, by what, and what is said of it
    markdown      a text read once: what readers see, what platforms make of it
    rules         the rules an article must keep, each a named check
    lures         what asks a reader, or a model, to do something
    mending       what has one right fix
    announcement  the same rules for short posts
    house         the front door: inspect, inspect_body, inspect_announcement, mended
    layout        from a manuscript to the text that goes out
    package       an article measured: words, reading time, readability
    card          the picture that a link to an article becomes
"""
