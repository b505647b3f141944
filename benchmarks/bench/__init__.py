"""The parts of run.py and overload.py; standard library only."""
