"""Which packing to use, and why, in a sentence. Pure."""

from __future__ import annotations

from headrace.autoscale.profile import Profile, Try, Use, best


def judged(profile: Profile) -> Use | None:
    """None where nothing keeps the promise."""
    used = best(profile.packings())
    if used is None:
        return None
    return Use(workers=used.workers, max_size=used.max_size, why=_words(used, profile))


def _words(used: Try, profile: Profile) -> str:
    """ "use k = 2: 41 calls/s inside 3 s against 22 with k = 1 and 43 with k = 4, which costs 2.1
    GB more" """
    others = [one for one in profile.packings() if one.workers != used.workers]
    said = f"use {_named(used)}: {_rate(used)} calls/s inside {profile.slo_s:g} s"
    if others:
        listed = [f"{_rate(one)} with k = {one.workers}" for one in others]
        said += f" against {' and '.join(filter(None, (', '.join(listed[:-1]), listed[-1])))}"
        most = others[-1]
        if most.workers > used.workers and most.per_second > used.per_second:
            said += _cost(used, most)
    packed = {one.workers for one in profile.packings()}
    if none := [str(k) for k in profile.ks() if k not in packed]:
        said += f"; nothing was sustained with k = {', '.join(none)}"
    if not used.confirmed:
        said += "; a second look did not confirm it in the time given"
    return said


def _named(one: Try) -> str:
    return f"k = {one.workers}" + (f" with batches of up to {one.max_size}" * (one.max_size > 1))


def _rate(one: Try) -> str:
    return f"{one.per_second:,.3g}" if one.per_second < 1000 else f"{one.per_second:,.0f}"


def _cost(used: Try, other: Try) -> str:
    """What the few calls more would take."""
    gpu, memory = other.gpu_mb - used.gpu_mb, other.memory_mb - used.memory_mb
    mb, where = (gpu, " on the GPU") if gpu > 0 else (memory, "")
    if mb < 1:
        return ""
    size = f"{mb / 1000:.1f} GB" if mb >= 1000 else f"{mb:.0f} MB"
    return f", which costs {size} more{where}"


def no_verdict(profile: Profile) -> str:
    """Why nothing can be used."""
    said = f"no rate was sustained inside {profile.slo_s:g} s"
    tried = [point for one in profile.tries for point in one.windows]
    if tried:
        least = min(tried, key=lambda point: point.rate)
        return f"{said}: at {least.rate:.3g} calls/s {least.why}"
    whys = {one.why for one in profile.tries if one.why}
    return f"{said}: {'; '.join(whys)}" if whys else said
