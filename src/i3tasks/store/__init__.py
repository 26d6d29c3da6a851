"""The rows' verbs, in sync ORM: one function, one transaction.

The functions that a worker calls for every try (`claim`, `settle`, `renew`, `confirm_published`) take a list and
give a list, so that `writer` can run the requests of many tries as one transaction. Called with a list of one
inside the caller's own `atomic`, they are the inline way.
"""
