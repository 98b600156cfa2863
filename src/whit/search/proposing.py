"""Numbers worth trying next, from what came of those before: Optuna's sampler, asked and told."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from whit.errors import PlanError
from whit.search.candidates import Range

__all__ = ["check_optuna", "proposals"]

Numbers = Mapping[str, float]


def check_optuna() -> Any:
    """The package.

    Raises:
        PlanError: It is not installed.
    """
    try:
        optuna = import_module("optuna")
    except ModuleNotFoundError as error:
        raise PlanError(f"a search needs {error.name}: pip install 'whit[search]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def proposals(
    ranges: Mapping[str, Range], told: Sequence[tuple[Numbers, float]], count: int, seed: int
) -> list[dict[str, float]]:
    """Numbers to try, by the Tree-structured Parzen Estimator (Bergstra et al. 2011).

    They are the same for the same arguments, whoever asks and however often.

    Args:
        ranges: What may be chosen.
        told: What was tried, with what came of it, which is to be small; all that is known is told anew each time.
        count: How many to propose, different from each other.
        seed: Of the choices.

    >>> ranges = {"x": Range(0.1, 10.0)}
    >>> told = [({"x": x}, abs(x - 2)) for x in (0.1, 0.5, 2.0, 2.5, 7.0, 9.0)]
    >>> [one] = proposals(ranges, told, 1, seed=0)
    >>> one == proposals(ranges, told, 1, seed=0)[0]
    True
    """
    optuna = check_optuna()
    spaces = {name: optuna.distributions.FloatDistribution(one.low, one.high, log=True) for name, one in ranges.items()}
    # A seed of its own for every state of knowledge: a study that lives on would choose by how often it was asked.
    sampler = optuna.samplers.TPESampler(seed=seed * 1_000_003 + len(told), n_startup_trials=1, multivariate=True)
    study = optuna.create_study(sampler=sampler)
    for numbers, value in told:
        inside = {name: one.inside(numbers[name]) for name, one in ranges.items()}
        study.add_trial(optuna.trial.create_trial(params=inside, distributions=spaces, value=value))
    return [dict(study.ask(spaces).params) for _ in range(count)]
