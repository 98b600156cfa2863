"""The codec: whatever goes in comes out, damaged bytes are found, and the bytes are the same everywhere."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from whit import _core

LARGEST = 2**24 - 1
MATRICES = arrays.arrays(
    np.int32,
    arrays.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=24),
    elements=st.one_of(st.just(0), st.integers(-3, 3), st.integers(-40, 40), st.integers(-LARGEST, LARGEST)),
)


def weights(rows: int = 64, columns: int = 300, spread: float = 1.0) -> np.ndarray:
    """Codes of weights, whose rows differ in size."""
    random = np.random.default_rng(0)
    values = random.laplace(0, spread, (rows, columns)) * random.uniform(0.2, 2, (rows, 1))
    return np.rint(values).astype(np.int32)


def entropy(codes: np.ndarray) -> float:
    share = np.unique(codes, return_counts=True)[1] / codes.size
    return float(-(share * np.log2(share)).sum() * codes.size / 8)


@given(MATRICES)
def test_decoding_gives_back_what_was_encoded(codes: np.ndarray) -> None:
    coded = _core.encode_codes(codes)
    np.testing.assert_array_equal(_core.decode_codes(coded, *codes.shape), codes)


@given(MATRICES)
def test_the_estimate_is_what_encoding_takes_but_for_the_end_of_the_chunk(codes: np.ndarray) -> None:
    size = len(_core.encode_codes(codes))
    bits = _core.code_bits(codes)
    assert bits / 8 <= size + 1e-3 * bits
    assert size <= bits * 1.001 / 8 + 5


@pytest.mark.parametrize("spread", [0.3, 1.0, 3.0])
def test_rows_of_different_size_take_less_than_the_entropy_of_their_mixture(spread: float) -> None:
    codes = weights(spread=spread)
    assert len(_core.encode_codes(codes)) < entropy(codes)


def test_a_matrix_of_zeros_takes_next_to_nothing() -> None:
    assert len(_core.encode_codes(np.zeros((1000, 1000), np.int32))) < 250


def test_a_large_matrix_is_coded_in_chunks_and_threads_change_nothing() -> None:
    codes = weights(rows=2100, columns=1024)  # chunks of 1024, 1024 and 52 rows
    coded = _core.encode_codes(codes, threads=1)
    np.testing.assert_array_equal(_core.encode_codes(codes, threads=3), coded)
    np.testing.assert_array_equal(_core.decode_codes(coded, *codes.shape, threads=3), codes)
    first = int.from_bytes(coded[:4].tobytes(), "little")
    alone = _core.encode_codes(np.ascontiguousarray(codes[:1024]))
    np.testing.assert_array_equal(coded[12 : 12 + first], alone)


def spec_decode(data: bytes, rows: int, columns: int) -> list[int]:
    """One chunk decoded as spec/whit-format.md says, in the order of the scan."""
    place, range_, code = 4, 2**32 - 1, int.from_bytes(data[:4], "big")
    bits: dict[object, list[int]] = {}

    def decide(*names: object) -> int:
        nonlocal place, range_, code
        pair = [bits.setdefault(name, [32768, 32768]) for name in names]
        bound = (range_ >> 16) * (sum(map(sum, pair)) >> 2)
        outcome = int(code < bound)
        if outcome:
            range_ = bound
        else:
            code, range_ = code - bound, range_ - bound
        while range_ < 2**24:
            range_, code, place = range_ * 256, code * 256 + data[place], place + 1
        for bit in pair:
            for at, shift in ((0, 4), (1, 7)):
                bit[at] += (65536 - bit[at]) >> shift if outcome else -(bit[at] >> shift)
        return outcome

    def level(mean: int) -> int:
        return sum(bound <= mean for bound in (1, 17, 33, 49, 73, 105, 145, 201, 281, 401, 601))

    def towards_zero(number: int, by: int) -> int:
        return abs(number) // by * (1 if number >= 0 else -1)

    means, last, column, found = [64] * rows, [0] * rows, 64, []
    for place_in_scan in range(rows * columns):
        row = place_in_scan % rows
        left, up = last[row], last[row - 1] if row else 0
        a = 3 * level((means[row] + column) // 2) + min(2, abs(left))
        b = 3 * level((3 * means[row] + column) // 4) + min(2, abs(up))
        value = 0
        if decide(("n0", a), ("n1", b)):
            signs = ("s", int(np.sign(left)), int(np.sign(up)))
            negative = decide(signs, signs)
            value = 1
            while value < 15 and decide(("l0", value, a), ("l1", value, b)):
                value += 1
            if value == 15:
                digits = 0
                while decide(("d", digits), ("d", digits)):
                    digits += 1
                number = 1
                for _ in range(digits):
                    bits.pop("even", None)
                    number = number * 2 + decide("even", "even")
                value += number - 1
            value = -value if negative else value
        seen = 64 * min(63, abs(value))
        means[row] += towards_zero(seen - means[row], 16)
        column += towards_zero(seen - column, 16)
        last[row] = value
        found.append(value)
    assert place == len(data)
    return found


@pytest.mark.parametrize("spread", [0.3, 2.0, 30.0])
def test_a_decoder_written_from_the_specification_agrees(spread: float) -> None:
    codes = weights(rows=13, columns=37, spread=spread)
    assert spec_decode(_core.encode_codes(codes).tobytes(), 13, 37) == codes.T.reshape(-1).tolist()


@pytest.mark.parametrize("codes", [weights(), weights(spread=20.0), weights(rows=1, columns=5)], ids=len)
def test_bytes_that_are_cut_or_go_on_are_refused(codes: np.ndarray) -> None:
    coded = _core.encode_codes(codes)
    for size in {0, 3, len(coded) // 2, len(coded) - 1}:
        with pytest.raises(ValueError, match="coded bytes"):
            _core.decode_codes(coded[:size].copy(), *codes.shape)
    with pytest.raises(ValueError, match="go on after the last code"):
        _core.decode_codes(np.append(coded, np.uint8(0)), *codes.shape)


@given(st.binary(max_size=60), st.integers(0, 30), st.integers(0, 30))
def test_any_bytes_decode_to_codes_in_range_or_are_refused(data: bytes, rows: int, columns: int) -> None:
    try:
        codes = _core.decode_codes(np.frombuffer(data, np.uint8), rows, columns)
    except ValueError:
        return
    assert codes.shape == (rows, columns)
    assert not codes.size or np.abs(codes.astype(np.int64)).max() <= LARGEST


def test_damage_to_the_sizes_of_chunks_is_refused() -> None:
    codes = weights(rows=2100, columns=1024)
    coded = _core.encode_codes(codes)
    for place, value in ((0, 255), (3, 255), (11, 1)):
        broken = coded.copy()
        broken[place] ^= value
        with pytest.raises(ValueError, match="coded bytes"):
            _core.decode_codes(broken, *codes.shape)


def test_a_shape_that_the_bytes_cannot_hold_is_refused_before_anything_is_allocated() -> None:
    with pytest.raises(ValueError, match="cannot hold 1000000000 x 1000000000 codes"):
        _core.decode_codes(np.zeros(8, np.uint8), 10**9, 10**9)


def test_a_code_that_is_too_large_is_named() -> None:
    with pytest.raises(ValueError, match="16777216 is beyond"):
        _core.encode_codes(np.array([[2**24]], np.int32))


def test_no_threads_and_negative_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="threads is 0"):
        _core.encode_codes(np.zeros((1, 1), np.int32), threads=0)
    with pytest.raises(ValueError, match="no negative number"):
        _core.decode_codes(np.zeros(4, np.uint8), -1, 1)
