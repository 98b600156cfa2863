"""Tasks are done in order, by whoever, and again where a worker is killed."""

import importlib.util
import math
import multiprocessing
import os
import signal
import time

import pytest

import whit
from whit.workers import Processes, Ray, Workers

NUMBERS = [9.0, 4.0, 1.0, 16.0, 25.0]


@pytest.mark.parametrize("workers", [Workers(), Processes(1), Processes(2)], ids=str)
def test_results_come_in_the_order_of_the_tasks(workers):
    assert list(workers.map(math.sqrt, NUMBERS)) == [3, 2, 1, 4, 5]
    assert list(workers.map(math.sqrt, [])) == []


@pytest.mark.parametrize("workers", [Workers(), Processes(2)], ids=str)
def test_what_a_task_raises_is_raised_here_after_what_came_before_it(workers):
    done = []
    with pytest.raises(ValueError, match=r"math domain error|nonnegative"):
        done += [done.append(one) for one in workers.map(math.sqrt, [4.0, -1.0, 9.0])]
    assert done == [2]


def test_a_worker_that_is_killed_costs_its_task_and_nothing_else():
    results = []
    killed = set()
    for result in Processes(2).map(time.sleep, [0.1] * 8):
        if not results:
            for child in multiprocessing.active_children():
                killed.add(child.pid)
                os.kill(child.pid, signal.SIGKILL)
        results.append(result)
    assert len(killed) == 2
    assert results == [None] * 8


def test_a_task_that_takes_its_worker_down_every_time_is_an_error():
    with pytest.raises(whit.WorkersError, match=r"workers died 3 times at task 1 of 1"):
        list(Processes(1).map(os._exit, [1]))


def test_no_processes_cannot_do_anything():
    with pytest.raises(whit.PlanError, match=r"Processes\(count=0\)"):
        Processes(0)


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is installed")
def test_without_ray_the_error_says_how_to_get_it():
    with pytest.raises(whit.WorkersError, match=r"pip install 'whit\[ray\]'"):
        list(Ray("local").map(math.sqrt, NUMBERS))


@pytest.fixture
def ray():
    return pytest.importorskip("ray", reason="Ray is not installed: pip install 'whit[ray]'")


def test_ray_gives_the_same_results_and_reports_nothing(ray):
    assert list(Ray("local", count=1).map(math.sqrt, NUMBERS)) == [3, 2, 1, 4, 5]
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


def test_what_a_task_raises_on_ray_is_raised_here(ray):
    with pytest.raises(ValueError, match=r"math domain error|nonnegative"):
        list(Ray("local", count=1).map(math.sqrt, [-1.0]))


def test_a_cluster_that_is_not_there_is_an_error(ray):
    with pytest.raises(whit.WorkersError, match=r"there is no Ray cluster at 127\.0\.0\.1:1"):
        list(Ray("127.0.0.1:1").map(math.sqrt, NUMBERS))
