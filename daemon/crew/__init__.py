"""
The roles, under an orchestrator that is code (`daemon.newsroom`).

    scout       what to write about (no model)
    researcher  plan and notes
    writer      the draft and its revisions
    editor      the review
    publicist   the posts that announce an article
    digest      a link digest from feed metadata (no model)
    board       evidence and claims, and how prompts show them
    brief       the operator's words
    schemas     what models answer with
    prompts/    the roles' standing instructions

A role turns what it knows into a `Question`; asking, paying and checking are others' work.
"""
