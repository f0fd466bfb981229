"""`python -m bench.steps`: what each step of one call costs, and how far the steps add up to the call.

* `probes`: what a probe is, and how many of them are run in short rounds, in turn, on a machine that others use too.
* `loops`: steps that can be run alone, in a loop: the dispatcher's functions in C (`bench/native/steps.c`), the Python
  around them, and the way of a cache line or of the CPU from one process to another.
* `live`: whole calls to a booted system, the slow paths among them.
* `ledger`: of which steps a call consists; sums, wholes, and what is left over.

Every figure has a name (`c.fill`, `live.c.null.cross-core`), and every step is a formula over names: a step that cannot
be run alone is the difference of two figures, and its formula says which.
"""
