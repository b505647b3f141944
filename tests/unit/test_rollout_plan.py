"""What the registry wants, what there is -> what to do; however fast the alias turns."""

from hypothesis import given
from hypothesis import strategies as st

from headrace.deploy.plan import Begin, Finish, Nothing, Place, Stop, plan
from headrace.deployments import Rollout


def rollout(old=1, new=2, named=..., **more):
    made = {
        "id": "r", "model": "wine", "from_version": old, "to_version": new, "strategy": "canary",
        "author": "ann", "reason": "better", "started": 0.0, "updated": 0.0, "since": 0.0,
        "named": new if named is ... else named,
    }  # fmt: skip
    return Rollout(**(made | more))


def test_the_first_version_is_placed_at_once():
    assert plan(None, None, None) == Place(0)
    assert plan(3, None, None) == Place(3)


def test_what_serves_and_is_named_stays():
    assert isinstance(plan(3, 3, None), Nothing)
    assert isinstance(plan(None, 3, None), Nothing), "a registry that forgot is no order"
    assert isinstance(plan(None, 0, None), Nothing)


def test_another_name_begins_a_rollout_once():
    assert plan(3, 0, None) == Begin(3)
    assert plan(3, 4, None) == Begin(3), "also an older one"
    assert isinstance(plan(2, 1, rollout()), Nothing), "it is under way"


def test_what_was_rolled_back_is_not_tried_again():
    assert isinstance(plan(2, 1, None, barred={2}), Nothing)
    assert plan(3, 1, None, barred={2}) == Begin(3)


def test_what_is_no_longer_wanted_is_stopped():
    assert isinstance(plan(3, 1, rollout()), Stop)
    assert isinstance(plan(1, 1, rollout()), Stop), "the alias went back"
    assert isinstance(plan(None, 1, rollout()), Stop)


def test_who_has_all_calls_already_is_not_taken_back_for_a_third():
    keeping = rollout(state="keeping")
    assert isinstance(plan(3, 1, keeping), Finish)
    assert isinstance(plan(1, 1, keeping), Stop), "but for the one before"
    assert isinstance(plan(None, 1, keeping), Nothing)


def test_what_a_person_started_stands_against_the_alias_of_its_start():
    hand = rollout(new=5, named=4)
    assert isinstance(plan(4, 4, hand), Nothing)
    assert isinstance(plan(5, 4, hand), Nothing)
    assert isinstance(plan(6, 4, hand), Stop)
    over = rollout(new=5, named=4, state="done", ended=1.0)
    assert isinstance(plan(4, 5, None, over), Nothing), "the alias is about to follow"
    assert plan(6, 5, None, over) == Begin(6)


@given(st.lists(st.sampled_from([None, 1, 2, 3]), min_size=1, max_size=15), st.data())
def test_the_end_is_what_the_alias_names_last(names, data):
    """Rollouts take a while, fail or not; the alias turns meanwhile."""
    bad = data.draw(st.sets(st.sampled_from([1, 2, 3]), max_size=2))
    stable, now, last, barred = None, None, None, set()
    tried = []
    for place, named in enumerate([*names, *[names[-1]] * 12]):
        barred = {version for version in barred if version == named}
        step = plan(named, stable, now, last, barred)
        if isinstance(step, Place):
            stable = step.version
        elif isinstance(step, Begin):
            now = rollout(stable, step.version)
            tried.append((place, step.version))
        elif isinstance(step, Stop | Finish):
            stable = now.to_version if isinstance(step, Finish) else stable
            now = None
        elif now is not None and data.draw(st.booleans() if place < len(names) else st.just(True)):
            if now.to_version in bad:
                barred.add(now.to_version)
            else:
                stable = now.to_version
            now = None
    wanted = names[-1]
    assert now is None
    if wanted is not None and wanted not in bad:
        assert stable == wanted
    late = [version for place, version in tried if place > len(names)]
    assert len(late) <= 1, "one rollout of what is named, however it ends"
