"""What is past its time goes: first the object, then what names it, so that nothing is left that
nobody knows of. A store of objects that is down makes it late, and is asked again."""

from __future__ import annotations

import structlog

from headrace.errors import Unavailable
from headrace.records import made
from headrace.store.bodies import job_of
from headrace.store.open import Store

log = structlog.get_logger("headrace.clerk")

MOST = 200
ORPHAN_S = 3600.0  # longer than any submission takes
LATER_S = 30.0  # an object could not be removed: next try


async def remove_old(store: Store) -> int:
    """Inputs and rows whose time is over, up to MOST of each; how many. Raises Unavailable."""
    inputs = await store.retention.inputs(MOST)
    kept = [old.id for old in inputs if not await _gone(store, old.input_ref)]
    await store.retention.forget_inputs([old.id for old in inputs if old.id not in kept])
    rows = await store.retention.rows(MOST)
    kept += [
        old.id
        for old in rows
        if not (await _gone(store, old.input_ref) and await _gone(store, old.result_ref))
    ]
    await store.retention.forget_rows([old.id for old in rows if old.id not in kept])
    if kept:
        log.warning("objects not removed", jobs=len(kept), again_s=LATER_S)
        await store.retention.later(kept, LATER_S)
    return len(inputs) + len(rows) - len(kept)


async def remove_orphans(store: Store, now: float) -> int:
    """Objects whose job was never committed, or is gone: a gateway died between the two."""
    found = {name: job for name, job in (await store.bodies.jobs()).items()
             if made(job) < now - ORPHAN_S}  # fmt: skip
    names, removed = list(found), 0
    for start in range(0, len(names), MOST):
        part = names[start : start + MOST]
        known = await store.retention.known({found[name] for name in part})
        for name in part:
            if found[name] not in known and await _gone(store, name):
                removed += 1
    return removed


async def repair(store: Store) -> int:
    """What fell back goes to the first place, if its job is still known."""

    async def wanted(name: str) -> bool:
        return bool(await store.retention.known({job_of(name)}))

    return await store.chain.repair(wanted) if store.chain else 0


async def _gone(store: Store, ref: str) -> bool:
    try:
        await store.bodies.remove(ref)
    except Unavailable:
        return False
    except Exception as error:
        log.warning("an object cannot be removed", reason=type(error).__name__)
        return False
    return True
