"""What the caller of a search gave, and what of it makes a search this one and no other."""

import json
from dataclasses import dataclass, replace
from typing import Any

from whit import measure
from whit.data import Data
from whit.metrics import Metric
from whit.network import Network
from whit.progress import Progress
from whit.search.budget import Budget
from whit.search.digests import digest_of_network, digest_of_samples
from whit.store import Profile
from whit.target import Target
from whit.workers import Workers

__all__ = ["Given", "identity"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Given:
    """What the caller gave."""

    model: Any
    budget: Budget
    data: Data
    metric: Metric
    target: Target
    teacher: Any
    workers: Workers
    threads: int
    batch: int
    profile: Profile
    trials: int | None
    seed: int
    progress: Progress


def identity(given: Given, original: Network, teacher: Network | None) -> dict[str, str]:
    """What makes a search this one and no other; more time may be given to one that goes on."""
    budget = replace(given.budget, seconds=None)
    samples = {
        "training data": given.data.train,
        "test data": given.data.test,
        "validation data": given.data.validation,
    }
    facts = {name: digest_of_samples(one) for name, one in samples.items() if one is not None}
    return facts | {
        "budget": str(budget),
        "network": digest_of_network(original),
        "teacher": "the network itself" if teacher is None else digest_of_network(teacher),
        "metric": given.metric.name,
        "target": f"{given.target.runtime} {sorted(given.target.features)}",
        "profile": given.profile,
        "threads": str(given.threads),
        "batch": str(given.batch),
        "seed": str(given.seed),
        "versions": json.dumps(measure.versions(), sort_keys=True),
    }
