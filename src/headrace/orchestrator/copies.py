"""A version's workload is a copy of its model's, with another `--model`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from headrace.deployments import parted
from headrace.orchestrator import refusals

OPTION = "--model"


def model_of(workload: str) -> str:
    """Whose workload a version's is made like. Raises Invalid where it is no version's."""
    try:
        model, version = parted(workload)
    except ValueError as error:
        raise refusals.not_copied(str(error)) from None
    if not version:
        raise refusals.not_copied(f"workload {workload!r}: expected MODEL@VERSION")
    return model


def served(words: Iterable[str]) -> list[str]:
    """The workloads that a command line names."""
    return [words[place][len(before) :] for words, place, before in _found([list(words)])]


def rename(commands: list[list[str]], workload: str) -> None:
    """Lets the command lines of one workload name a version. Raises Invalid where they do not name
    its model, and nothing else."""
    model, found = model_of(workload), list(_found(commands))
    named = [words[place][len(before) :] for words, place, before in found]
    if named != [model]:
        raise refusals.not_copied(
            f"the workload of {model} is started with {OPTION} {', '.join(named) or '(none)'}: "
            f"expected {OPTION} {model}, and no other, as words of its arguments"
        )
    [(words, place, before)] = found
    words[place] = before + workload


def _found(commands: list[list[str]]) -> Iterator[tuple[list[str], int, str]]:
    """Words, the place of a name in them, and what stands before the name there."""
    for words in commands:
        for place, word in enumerate(words):
            if word.startswith(f"{OPTION}="):
                yield words, place, f"{OPTION}="
            elif place and words[place - 1] == OPTION:
                yield words, place, ""
