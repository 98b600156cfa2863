"""Cuts are tried by kinds and by halves: what holds is found, and nothing is tried twice."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from whit.decide.channels import Cut
from whit.decide.proof import Proof
from whit.graph.coupling import Group
from whit.ledger import Axis


class Pretended(Proof):
    """Cuts hold unless one of ``bad`` is among them, or one of ``counted`` that is not steady."""

    def __init__(self, bad, counted):
        self.bad, self.counted = bad, counted
        self.sound, self.broken, self.tried = [], [], []

    def holds(self, cuts):
        self.tried.append(tuple((cut.group.name, cut.steady) for cut in cuts))
        return not any(
            cut.group.name in self.bad or (cut.group.name in self.counted and not cut.steady) for cut in cuts
        )


def cut(name):
    """Of one kind are ``a0`` and ``a1``."""
    return Cut(Group(name=name, cuts={Axis(f"{name}.weight", 0): np.arange(2)[:, None]}), np.arange(1))


names = st.permutations([f"{kind}{place}" for kind in "abc" for place in range(6)]).flatmap(
    lambda every: st.integers(1, len(every)).map(lambda count: every[:count])
)
some = names.flatmap(lambda every: st.tuples(st.just(every), *[st.sets(st.sampled_from(every))] * 2))


def tried(every, bad, counted):
    """The proof, after a kind of network in which some are bad was asked about them all."""
    proof = Pretended(bad, counted - bad)
    if proof.holds([cut(name) for name in every]):
        proof.sound = [cut(name) for name in every]
    else:
        proof.add([cut(name) for name in every], fail=True)
    return proof, [one.group.name for one in proof.sound], [one.group.name for one in proof.broken]


@given(some)
def test_all_that_holds_is_found_but_what_is_alike_to_two_that_do_not(drawn):
    every, bad, counted = drawn
    proof, sound, broken = tried(every, bad, counted)
    assert sorted(sound + broken) == sorted(every)
    assert not bad & {*sound}
    alike = [kind for kind, count in Counter(name[0] for name in bad).items() if count > 1]
    assert all(name in bad or name[0] in alike for name in broken)
    # Of those that hold either way, some may be steady because the first of their kind had to be.
    assert counted & {*sound} <= {one.group.name for one in proof.sound if one.steady}
    # A guess that all others have to be steady may be made again, of the last one alone.
    asked = [cuts for cuts in proof.tried if not any(steady for _, steady in cuts)]
    assert len({*asked}) == len(asked)


@given(names, st.sets(st.sampled_from("abc")))
def test_where_all_of_a_kind_do_not_hold_two_are_tried(every, kinds):
    bad = {name for name in every if name[0] in kinds}
    proof, sound, broken = tried(every, bad, set())
    assert ({*sound}, {*broken}) == ({*every} - bad, bad)
    # Once all together; then of three kinds, in at most two halves that are asked as a whole, each as a whole too; of a
    # kind that does not hold two, each as it is and steady.
    assert len(proof.tried) <= 1 + 2 + 3 + 4 * len(kinds)


def test_one_among_many_alike_is_found_by_halves():
    every = [f"a{place}" for place in range(64)]
    proof, _, broken = tried(every, {"a40"}, set())
    assert broken == ["a40"]
    assert len(proof.tried) <= 2 + 4 * 6  # all, the first, and per halving no more than two halves and two peeled off
