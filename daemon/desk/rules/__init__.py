"""
The house rules, one function each, from a manuscript and its context to findings.

grounds: what is printed is borne out.  markup: nothing a platform would act on.
secrecy: nothing of ours gets out.  form: what platforms take and readers deserve.
"""
