"""Cuts are tried by halves: what holds is found, and nothing is tried twice."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from whit.decide.channels import Cut
from whit.decide.proof import Proof
from whit.graph.coupling import Group


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
    return Cut(Group(name=name, cuts={}), np.arange(2))


names = st.integers(0, 12).map(lambda count: [f"group{place}" for place in range(count)])


@given(names.flatmap(lambda all_: st.tuples(st.just(all_), *[st.sets(st.sampled_from(all_ or ["none"]))] * 2)))
def test_all_that_holds_is_found(given_names):
    every, bad, counted = given_names
    proof = Pretended(bad, counted - bad)
    if not proof.holds([cut(name) for name in every]):
        proof.add([cut(name) for name in every], fail=True)
        assert [one.group.name for one in proof.sound] == [name for name in every if name not in bad]
        assert [one.group.name for one in proof.broken] == [name for name in every if name in bad]
        assert {one.group.name for one in proof.sound if one.steady} == counted - bad
    assert len(set(proof.tried)) == len(proof.tried)
