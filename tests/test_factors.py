"""Weights as products: exact at full rank, the best there is below it, in the measure of what a layer reads."""

import numpy as np
import pytest

from whit.factors import FORMS, Form
from whit.moments import Moments

RANDOM = np.random.default_rng(0)
SHAPES = {"matrix": [(5, 9), (9, 5), (6, 4, 1, 1)], "spatial": [(5, 4, 3, 3), (4, 6, 3, 5), (2, 8, 5, 1)]}
SHAPES["channel"] = [(6, 5, 3, 3), (2, 40, 1, 3), (8, 3, 3), (4, 5, 3, 3, 2)]
CASES = [(FORMS[name], shape) for name, shapes in SHAPES.items() for shape in shapes]


def read_by(columns: int, rows: int, spread: float = 30) -> Moments:
    """Those of parts that differ much in size and go together; output channels count differently as well."""
    turned = np.linalg.qr(RANDOM.normal(size=(columns, columns)))[0]
    x = RANDOM.normal(size=(200, columns)) * np.geomspace(1, spread, columns) @ turned
    second = (x.T @ x / 200)[None]
    mean = np.zeros((1, columns))
    counts = np.geomspace(0.1, 10, rows)
    return Moments(second=second, cross=second, mean=mean, original=mean, sensitivity=counts)


def made(form: Form, shape: tuple[int, ...]) -> tuple[np.ndarray, Moments]:
    weight = RANDOM.normal(size=shape).astype(np.float32)
    return weight, read_by(int(np.prod(shape[1:])), shape[0])


def error(form: Form, weight: np.ndarray, moments: Moments, found: tuple[np.ndarray, ...]) -> float:
    return moments.growth(weight.reshape(len(weight), -1) - form.product(found))


@pytest.mark.parametrize(("form", "shape"), CASES)
@pytest.mark.parametrize("knowing", [False, True])
def test_at_full_rank_the_product_is_the_weight(form: Form, shape: tuple[int, ...], knowing: bool) -> None:
    weight, moments = made(form, shape)
    moments = moments if knowing else Moments.equal(shape[0], int(np.prod(shape[1:])))
    found = form.factors(weight, moments, form.most(shape))
    assert tuple(one.shape for one in found) == form.shapes(shape, form.most(shape))
    np.testing.assert_allclose(form.product(found).reshape(shape), weight, atol=1e-6)


@pytest.mark.parametrize(("form", "shape"), CASES)
def test_errors_in_outputs_are_smaller_for_factors_that_know_what_is_read(form: Form, shape: tuple[int, ...]) -> None:
    weight, moments = made(form, shape)
    ranks = tuple(max(1, most // 2) for most in form.most(shape))
    plain = Moments.equal(shape[0], int(np.prod(shape[1:])))
    knowing, blind = (form.factors(weight, one, ranks) for one in (moments, plain))
    assert error(form, weight, moments, knowing) < error(form, weight, moments, blind)
    assert error(form, weight, plain, blind) < error(form, weight, plain, knowing)


def test_without_moments_a_matrix_is_its_singular_value_decomposition() -> None:
    weight = RANDOM.normal(size=(7, 12)).astype(np.float32)
    values = np.linalg.svd(weight.astype(np.float64), compute_uv=False)
    form, plain = FORMS["matrix"], Moments.equal(7, 12)
    np.testing.assert_allclose(form.energies(weight, plain)[0][:7], values**2, rtol=1e-6)
    found = form.factors(weight, plain, (3,))
    # Eckart and Young (1936): no matrix of rank 3 is nearer than by the values left out.
    assert error(form, weight, plain, found) == pytest.approx((values[3:] ** 2).sum(), rel=1e-6)


def test_what_a_matrix_loses_is_what_its_energies_say() -> None:
    form = FORMS["matrix"]
    weight, moments = made(form, (8, 12))[0], read_by(12, 8, spread=3)
    energies = form.energies(weight, moments)[0]
    assert energies.sum() == pytest.approx(moments.growth(weight), rel=1e-9)
    for rank in (1, 4, 7):
        lost = error(form, weight, moments, form.factors(weight, moments, (rank,)))
        assert lost == pytest.approx(energies[rank:].sum(), rel=0.02)  # but for the damping


@pytest.mark.parametrize(("form", "shape"), CASES)
def test_more_rank_never_loses_more(form: Form, shape: tuple[int, ...]) -> None:
    weight, moments = made(form, shape)
    ladder = zip(*(np.linspace(1, most, 4).astype(int) for most in form.most(shape)), strict=True)
    losses = [error(form, weight, moments, form.factors(weight, moments, tuple(map(int, one)))) for one in ladder]
    assert losses == sorted(losses, reverse=True)


def test_kernels_that_are_products_of_columns_and_rows_are_found() -> None:
    column, row = RANDOM.normal(size=(2, 4, 3)), RANDOM.normal(size=(5, 2, 3))
    weight = np.einsum("rih,orw->oihw", column, row).astype(np.float32)
    form = FORMS["spatial"]
    found = form.factors(weight, Moments.equal(5, 36), (2,))
    np.testing.assert_allclose(form.product(found).reshape(weight.shape), weight, atol=1e-5)


def test_kernels_between_few_channels_are_found() -> None:
    weight = np.einsum(
        "os,srhw,ri->oihw",
        RANDOM.normal(size=(7, 2)),
        RANDOM.normal(size=(2, 3, 3, 3)),
        RANDOM.normal(size=(3, 6)),
    ).astype(np.float32)
    form = FORMS["channel"]
    found = form.factors(weight, read_by(54, 7), (3, 2))
    np.testing.assert_allclose(form.product(found).reshape(weight.shape), weight, atol=2e-4)


def test_parts_are_as_large_in_either_factor() -> None:
    weight, moments = made(FORMS["matrix"], (8, 12))
    first, last = FORMS["matrix"].factors(weight, moments, (4,))
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), np.linalg.norm(last, axis=0), rtol=1e-9)


@pytest.mark.parametrize(("form", "shape"), CASES)
def test_a_weight_of_zeros_that_reads_nothing_has_factors_of_numbers(form: Form, shape: tuple[int, ...]) -> None:
    columns = int(np.prod(shape[1:]))
    nothing, none = np.zeros((1, columns, columns)), np.zeros((1, columns))
    moments = Moments(second=nothing, cross=nothing, mean=none, original=none, sensitivity=np.zeros(shape[0]))
    found = form.factors(np.zeros(shape, np.float32), moments, tuple(1 for _ in form.most(shape)))
    assert all(np.isfinite(one).all() for one in found)
    assert not form.product(found).any()
