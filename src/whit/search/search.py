"""Find the plan that meets a budget: one call, a Pareto front, and proof of the best on samples that nothing saw."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from whit.data import Array, Data, as_data
from whit.errors import PlanError
from whit.metrics import Metric, named
from whit.peak import check_measurable
from whit.progress import Progress
from whit.search.budget import Budget
from whit.search.found import Found
from whit.search.given import Given
from whit.search.proposing import check_optuna
from whit.search.searching import Searching
from whit.store import Profile
from whit.target import Target
from whit.workers import Workers

__all__ = ["search"]

Model = TypeVar("Model")


def search(
    model: Model | str | Path,
    budget: str | Budget,
    *,
    data: Data | tuple[Array, Array],
    metric: str | Metric = "accuracy",
    folder: str | Path | None = None,
    target: Target | None = None,
    teacher: Model | str | Path | None = None,
    workers: Workers | None = None,
    threads: int = 1,
    batch: int = 1,
    profile: Profile = "small",
    trials: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Found[Model]:
    """Find the plan that meets a budget, and compress a network by it.

    Plans are chosen by ``data.validation``, or else by a tenth of the training samples that is held out; the test
    samples are for the last number. The original knows training samples by heart, and what is trained without some of
    them forgets them as it would not forget others: then trainings are compared with a control, the network trained in
    the same way without being rounded.

    Args:
        model: A ``torch.nn.Module``, which is not changed, or the path of an ``.onnx`` file.
        budget: What the network may cost and what is to be least: ``"drop<=1%, minimize=bytes, time<=60min"``. Without
            a time, the search ends by itself.
        data: To train on, to choose by and for the last number; or ``(x, y)``, of which a fifth is held out for that.
        metric: ``"accuracy"``, ``"mae"``, ``"mse"`` or a ``whit.metrics.Metric``.
        folder: Where the record of the search is kept. The same call, made again after it was stopped, however that
            was, goes on from there.
        target: Where the network will run; None for this machine in ONNX Runtime. Latency is measured in its runtime,
            of files as ``whit.export`` writes them; the best is compared there as that does.
        teacher: What trainings learn from, such as a larger network, with the inputs and outputs of ``model``. None
            takes the network that was given. A search with another teacher is another search.
        workers: Who does trials, ``Processes(2)`` say; None does them here. Every trial computes on one thread.
        threads: Of ONNX Runtime, when latency and memory are measured.
        batch: Samples of the calls of which latency and memory are measured.
        profile: As of ``compress``.
        trials: How many plans to try, at most.
        seed: Of all that is random.
        progress: Shows what is under way.

    Raises:
        ParityError: The best network does not compute in the target's runtime what it computes in ONNX Runtime.
        PlanError, DataError, ModelError: What was given cannot be used; the message says why. Nothing that was tried
            came to a network; or the time was over before anything did.
        OutputError: The folder holds another search, or cannot be written.
        WorkersError: Workers cannot be reached, or die again and again.
    """
    check_optuna()
    if Budget.of(budget).counts("memory"):
        check_measurable()
        if target is not None and target.runtime != "onnx":
            raise PlanError(
                f"the budget {budget} speaks of memory, which is measured in ONNX Runtime, and the target is "
                f"{target.runtime}; leave out one of the two"
            )
    if trials is not None and trials < 1:
        raise PlanError(f"search(trials={trials}): it takes at least one to find anything")
    given = Given(
        model=model,
        budget=Budget.of(budget),
        data=as_data(data),
        metric=named(metric),
        target=target or Target.here(),
        teacher=teacher,
        workers=workers or Workers(),
        threads=threads,
        batch=batch,
        profile=profile,
        trials=trials,
        seed=seed,
        progress=progress or Progress(),
    )
    with _folder(folder) as place:
        return Searching(given, place).found()


@contextmanager
def _folder(folder: str | Path | None) -> Generator[Path]:
    if folder is not None:
        yield Path(folder)
        return
    with TemporaryDirectory(prefix="whit-search-") as made:
        yield Path(made)
