"""
The same job elsewhere, for `benchmarks.crew`.

    endpoint  the model and the web site they all talk to, in a process of its own
    job       the job's words, standard library only: the peers import it from their interpreters
    plain     httpx and nothing else
    graph     LangGraph
    agents    CrewAI
"""
