"""The schema over time. A change is made in two steps, so that old and new code run side by side:
first what both understand (a new table, a column with a default), a release later what is not
needed any more goes."""
