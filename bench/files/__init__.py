"""`bench fs`: what files cost, through `system.files`, beside the same Python code on the host's file systems.

plan.py          the extent of a run          operations.py    what is timed, one operation at a time
places.py        where the files are          large.py         a very large directory
cells.py         rows of the operations       tree.py          copying a tree
verdicts.py      the required figures         kill.py          the service is killed under load
report.py        tables, plots, the section of docs/benchmarks.md
"""
