"""The native core of whit: plain functions on C-contiguous NumPy arrays.

Every function is deterministic, whatever the number of threads, and releases the GIL while it works.
An array of another dtype, number of axes or layout is a TypeError and never converted silently; what is
wrong with the values is a ValueError. The algorithms are in ``native/include/whit``, one header each.
"""

import numpy as np
from numpy.typing import NDArray

def quantize(
    weights: NDArray[np.float32],
    scale: NDArray[np.float32],
    zero_point: NDArray[np.int32],
    group_size: int,
    low: int,
    high: int,
    threads: int = 1,
) -> NDArray[np.int32]:
    """``codes = clamp(round_half_to_even(weights / scale) + zero_point, low, high)``.

    Bit for bit what ONNX QuantizeLinear gives for the same arrays: the division is in float32.

    Args:
        weights: ``(rows, columns)``.
        scale: ``(1, groups)`` or ``(rows, groups)``, positive and finite, where
            ``groups == ceil(columns / group_size)``.
        zero_point: As ``scale``; the code of the weight 0, so ``low <= zero_point <= high``.
        group_size: Columns that share a scale; the last group may be shorter.
        low: Smallest code.
        high: Largest code.
        threads: Threads to work on the rows.

    Raises:
        ValueError: Weights are NaN or infinite, a scale is not positive and finite, a zero point is
            no code, or the shapes do not fit.
    """

def dequantize(
    codes: NDArray[np.int32],
    scale: NDArray[np.float32],
    zero_point: NDArray[np.int32],
    group_size: int,
    threads: int = 1,
) -> NDArray[np.float32]:
    """``weights = (codes - zero_point) * scale``, as ONNX DequantizeLinear; arguments as for `quantize`.

    Invariant: ``abs(weights - dequantize(quantize(weights))) <= scale / 2`` up to float32 rounding, for
    weights that were not clamped.
    """

def prune(scores: NDArray[np.float32], count: int) -> NDArray[np.bool_]:
    """A mask of the shape ``(n,)`` of ``scores`` that is False at the ``count`` smallest scores.

    Of equal scores the one with the lower index goes first, so exactly ``count`` entries are False.
    Takes O(n) time on average.

    Raises:
        ValueError: A score is NaN, or ``count`` is negative or above ``n``.
    """

def optimal_brain(
    weights: NDArray[np.float32],
    hessian: NDArray[np.float64],
    row_weight: NDArray[np.float64],
    scale: NDArray[np.float32],
    zero_point: NDArray[np.int32],
    group_size: int,
    low: int,
    high: int,
    rate: float,
    damping: float,
    mask: NDArray[np.uint8] | None = None,
    sweeps: int = 1,
    threads: int = 1,
) -> tuple[NDArray[np.int32], float, float]:
    """Codes that minimise ``sum(row_weight * error.T @ hessian @ error) + rate * bits``, column by column.

    The Optimal Brain Surgeon recursion (Hassibi and Stork 1993; Frantar et al. 2023): what a column misses is made up
    for by the columns still to come. ``bits`` come from the model of the codec's
    profile ``small``, which learns as it goes.

    Args:
        weights: ``(rows, columns)``.
        hessian: ``(groups, columns, columns)``, each symmetric and positive semi-definite; the rows are dealt to the
            groups in order. All zero means nothing is known, and counts as the identity.
        row_weight: ``(rows,)``, what an error in a row is worth, not negative.
        scale: As for `quantize`.
        zero_point: As for `quantize`.
        group_size: As for `quantize`.
        low: Smallest code.
        high: Largest code.
        rate: Price of a bit, in units of the loss; 0 gives plain OBS rounding.
        damping: Added to each diagonal, as a share of its mean.
        mask: As ``weights``; where it is 0 the weight stays zero.
        sweeps: How often to go over the matrix, each time with the model that the last left.
        threads: Threads that spread the errors.

    Returns:
        Codes ``(rows, columns)``, the loss, and the bits by the model.

    Raises:
        ValueError: An argument is NaN, infinite or negative where it must not be, or shapes do not fit.
    """

def update_params(
    weights: NDArray[np.float32],
    mask: NDArray[np.uint8],
    hessian: NDArray[np.float64],
    damping: float,
    threads: int = 1,
) -> NDArray[np.float32]:
    """Surviving weights that make up best for those that a mask removes: the closed-form OBS correction.

    Args:
        weights: ``(rows, columns)``.
        mask: Same shape; 0 removes a weight.
        hessian: ``(groups, columns, columns)``, as for `optimal_brain`.
        damping: Added to each diagonal, as a share of its mean; pulls the correction towards none.
        threads: Threads to work on the rows.

    Returns:
        ``(rows, columns)``: zero where the mask is 0, and elsewhere what minimises ``error.T @ hessian @ error``.
    """

def round_values(x: NDArray[np.float32], scale: float, low: int, high: int, threads: int = 1) -> NDArray[np.float32]:
    """``clamp(round_half_to_even(x / scale), low, high) * scale``, bit for bit as `quantize` and `dequantize`.

    Args:
        x: ``(n,)``; NaN stays NaN.
        scale: The step, positive and finite.
        low: Smallest code, the zero point taken off, not above 0.
        high: Largest code, likewise, not below 0.
        threads: Threads to work on the values.

    Raises:
        ValueError: The step is not positive and finite, or 0 lies outside the codes.
    """

def round_gradients(
    x: NDArray[np.float32], by_y: NDArray[np.float32], scale: float, low: int, high: int, threads: int = 1
) -> tuple[NDArray[np.float32], float, float]:
    """From the derivatives of a loss by ``round_values(x)`` those by ``x``, by the scale, and by what was clamped.

    Where ``x / scale`` lies strictly between ``low`` and ``high``, the derivative passes, and the scale gets it times
    ``round(x / scale) - x / scale``; elsewhere none passes, and the scale gets it times the code (Esser et al. 2020).

    Args:
        x: As for `round_values`.
        by_y: ``(n,)``.
        scale: As for `round_values`.
        low: As for `round_values`.
        high: As for `round_values`.
        threads: Threads to work on the values.

    Returns:
        The derivatives by ``x``, that by the scale, and the sum of those of values that were clamped.

    Raises:
        ValueError: As `round_values`, or the sizes differ.
    """

def pack_bits(codes: NDArray[np.int32], bits: int, low: int) -> NDArray[np.uint8]:
    """Stores ``codes - low`` side by side as unsigned fields of ``bits`` bits (1 to 16).

    Bit ``k`` of code ``i`` is bit ``(i * bits + k) % 8`` of byte ``(i * bits + k) // 8``; bits left over in
    the last byte are zero. The result has ``ceil(n * bits / 8)`` bytes.

    Raises:
        ValueError: A code is outside ``[low, low + 2**bits - 1]``; its index and value are named.
    """

def unpack_bits(packed: NDArray[np.uint8], count: int, bits: int, low: int) -> NDArray[np.int32]:
    """The ``count`` codes that `pack_bits` stored with the same ``bits`` and ``low``.

    Raises:
        ValueError: The number of bytes is not ``ceil(count * bits / 8)``, or left-over bits are not zero.
    """

def encode(codes: NDArray[np.int32], profile: str = "small", threads: int = 1) -> NDArray[np.uint8]:
    """The bytes of a matrix of codes ``(rows, columns)``; the same on every machine.

    Args:
        codes: At most ``2**23`` either way.
        profile: ``"small"``, adaptive distributions under rANS, or ``"fast"``, interleaved rANS with static tables: 5
            to 16 % larger and decoded 5 to 15 times faster.
        threads: Threads to work on the chunks, of which a matrix has one for every ``2**18`` codes.

    Raises:
        ValueError: A code is larger, or there is no such profile.
    """

def decode(encoded: NDArray[np.uint8], rows: int, columns: int, threads: int = 1) -> NDArray[np.int32]:
    """The codes that `encode` made bytes of; ``decode(encode(codes), *codes.shape)`` equals ``codes``.

    Never reads outside the bytes, nor allocates more than the declared shape and what describes it.

    Raises:
        ValueError: The bytes were damaged or are too few for the shape. Not all damage is seen: keep a checksum.
    """

def encode_floats(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The bytes of ``(n,)`` values, NaN and the sign of zero included; the same on every machine.

    Exponents and signs are range coded; mantissas are stored but for the lowest bits that are zero in all of them.
    """

def decode_floats(encoded: NDArray[np.uint8], count: int) -> NDArray[np.float32]:
    """The ``count`` values that `encode_floats` made bytes of, bit for bit.

    Raises:
        ValueError: The bytes cannot hold so many, or go on behind them. Not all damage is seen: keep a checksum.
    """

def encode_bytes(plain: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Text and other bytes that repeat themselves, as fewer bytes; the same on every machine.

    About a megabyte a second, and a fifth to a third fewer bytes than DEFLATE makes of a header or a graph.
    """

def decode_bytes(encoded: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """The ``size`` bytes that `encode_bytes` was given.

    Raises:
        ValueError: The bytes cannot hold so many, or go on behind them. Not all damage is seen: keep a checksum.
    """

def model_bits(codes: NDArray[np.int32]) -> float:
    """What ``encode(codes, "small")`` would take, in bits, up to a few bytes a chunk; nothing is coded."""

def bit_slopes(codes: NDArray[np.int32]) -> NDArray[np.float32]:
    """What a step from one code to the next would cost in bits, in the place of each code; nothing is coded.

    Args:
        codes: ``(rows, columns)``.

    Returns:
        ``(2, rows, columns)``: bits of ``code + 1`` minus bits of ``code``, then bits of ``code`` minus bits of
        ``code - 1``, by the adaptive model of ``encode(codes, "small")``, for the codes around it as they are.
    """
