"""Faults: jobs under kills, cuts and bugs, judged from the client's own ledger.

load.py     submits jobs, tries again under the same key, follows some to their end
nemesis.py  kills and pauses processes in the middle of that, and proves that it did
ledger.py   what load and nemesis write down, in a process that nothing here can kill by chance
models.py   the model: its results can be worked out, its runs are written down
books.py    the final state, from the API and straight from the database
checker.py  pure: ledger + runs + final state -> verdict
play.py      scene, ledger and loads, judged together
bugs/        bugs on purpose: the harness must be able to fail
releases/    roles that run another release
run.py      all of it as one command
"""
