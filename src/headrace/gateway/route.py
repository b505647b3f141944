"""A route, and the views of its versions -> who gets a call. Pure, but for chance.

the caller's key, or chance --> a bucket --> a version --> its view, where a worker is ready
                                                      +--> that of the version that stands by
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Generic, Protocol, TypeVar
from zlib import crc32

from headrace.deployments import WHOLE, Route

#: Callers who send the same one stay with their version while its share lasts or grows.
HEADER = b"headrace-route-key"


class View(Protocol):
    """What is known of one version's workers: `snapshot.ModelView`."""

    @property
    def queue(self) -> str: ...

    @property
    def ready(self) -> bool: ...

    @property
    def admitting(self) -> bool: ...


V = TypeVar("V", bound=View)


class Routing(Generic[V]):
    """One model's."""

    __slots__ = ("_chance", "_ladder", "_prefix", "lead", "route", "shadow", "standby")

    def __init__(
        self, route: Route, views: Mapping[int, V], chance: Callable[[], float] = random.random
    ) -> None:
        """`views`: of all versions in the route. `chance`: 0 to below 1."""
        self.route, self._chance = route, chance
        self._prefix = f"{route.model}\0".encode()  # as `deployments.bucket` has it
        self._ladder: list[tuple[int, V]] = []
        to = 0
        for share in sorted(route.shares, key=lambda share: -share.version):  # as `pick` has it
            if share.of_whole:
                to += share.of_whole
                self._ladder.append((to, views[share.version]))
        self.standby = views[route.stable]
        #: Of the version that has most calls.
        self.lead = views[max(route.shares, key=lambda share: share.of_whole).version]
        self.shadow = views[route.shadow] if route.shadow else None

    @property
    def plain(self) -> bool:
        """One version has all, and nobody looks: a call need not come here."""
        return len(self.route.shares) == 1 and self.shadow is None and not self.route.watched

    @property
    def face(self) -> V:
        """Of the version whose card and readiness are the model's."""
        return self.standby if self.standby.ready and not self.lead.ready else self.lead

    def of(self, key: bytes | None) -> V:
        """`key`: the caller's, None: it has none."""
        if key is None:
            return self.at(int(self._chance() * WHOLE))
        return self.at(crc32(self._prefix + key) % WHOLE)

    def at(self, place: int) -> V:
        """`place`: a bucket."""
        for to, view in self._ladder:
            if place < to:
                return view if view.ready else self._instead(view)
        return self.standby

    def _instead(self, view: V) -> V:
        """Where nobody is ready, whoever was so lately may come back."""
        if self.standby.ready or not view.admitting:
            return self.standby
        return view

    def shadowed(self) -> bool:
        """Is this call shown to the shadow?"""
        return self.shadow is not None and self._chance() * WHOLE < self.route.shadow_share

    def serves(self, version: int) -> bool:
        """Does it get calls, or stand by for those who do?"""
        return any(share.version == version for share in self.route.shares)

    def instead(self, workload: str) -> str:
        """The workload that does what this one did not; "" where there is none."""
        for view in (self.standby, self.lead):
            if view.ready and view.queue != workload:
                return view.queue
        return ""
