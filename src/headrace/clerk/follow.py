"""Which workload gets a stored job: its model, or the version that the model's route gives it."""

from __future__ import annotations

from headrace.announce import Announcement
from headrace.deployments import Route, parted, pick, place_of, workload_of


class Follow:
    """Routes as deploy says them."""

    def __init__(self) -> None:
        self._routes: dict[str, Route] = {}
        self._seen: dict[str, set[int]] = {}  # versions by model, of routes and of workers

    def hear(self, news: Route | Announcement) -> None:
        """What is older than what is known was late."""
        if isinstance(news, Announcement):
            self._seen.setdefault(news.model, set()).add(news.version)
            return
        known = self._routes.get(news.model)
        if known is None or known.revision < news.revision:
            self._routes[news.model] = news
            seen = self._seen.setdefault(news.model, set())
            seen |= {share.version for share in news.shares}

    def knows(self, model: str) -> bool:
        return model in self._routes

    def workload(self, model: str, job_id: str) -> str:
        """The same as a gateway's, as long as its workers are ready."""
        return self.at(model, place_of(job_id))

    def at(self, model: str, place: int) -> str:
        """`place`: a bucket."""
        route = self._routes.get(model)
        return model if route is None else workload_of(model, pick(route.shares, place))

    def workloads(self, model: str) -> list[str]:
        """All that may get a job of it."""
        route = self._routes.get(model)
        if route is None:
            return [model]
        return [workload_of(model, share.version) for share in route.shares]

    def left(self) -> list[str]:
        """Workloads that get no calls any more, and have not been forgotten."""
        found = []
        for model, route in self._routes.items():
            served = {share.version for share in route.shares} | {route.shadow or -1}
            found += [workload_of(model, each) for each in self._seen.get(model, set()) - served]
        return found

    def forget(self, workload: str) -> None:
        """Nothing of it is left."""
        model, version = parted(workload)
        self._seen.get(model, set()).discard(version)
