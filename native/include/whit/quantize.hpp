// Affine (uniform) quantization, bit for bit as ONNX QuantizeLinear and DequantizeLinear.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "whit/parallel.hpp"
#include "whit/span.hpp"

namespace whit {

/// How integer codes stand for real weights: `weight ~= (code - zero_point) * scale`.
///
/// Both matrices have one row for all rows of the weights or one row each, and one
/// column for each run of `group_size` columns (the last run may be shorter).
struct Affine {
    Matrix<const float> scale;
    Matrix<const std::int32_t> zero_point;
    std::int64_t group_size;

    /// Calls `body(column, scale, zero_point)` for every column of one row of the weights.
    template <typename Body>
    void for_each_column(std::size_t row, std::size_t columns, const Body& body) const {
        const std::size_t own = scale.rows() == 1 ? 0 : row;
        const auto width = static_cast<std::size_t>(group_size);
        for (std::size_t group = 0, first = 0; first < columns; ++group) {
            const std::size_t last = first + std::min(width, columns - first);
            const float s = scale.row(own)[group];
            const std::int32_t z = zero_point.row(own)[group];
            for (; first < last; ++first) body(first, s, z);
        }
    }
};

namespace detail {

inline std::string shape(std::size_t rows, std::size_t columns) {
    return "(" + std::to_string(rows) + ", " + std::to_string(columns) + ")";
}

inline void check(const Affine& affine, std::size_t rows, std::size_t columns) {
    if (affine.group_size < 1) {
        throw std::invalid_argument("group_size is " + std::to_string(affine.group_size) +
                                    ", but a group has at least 1 column; for one group a row, give " +
                                    std::to_string(std::max<std::size_t>(columns, 1)) + ".");
    }
    const auto width = static_cast<std::size_t>(affine.group_size);
    const std::size_t groups = columns / width + (columns % width != 0);
    const auto fits = [&](const auto& m) {
        return (m.rows() == 1 || m.rows() == rows) && m.columns() == groups;
    };
    if (!fits(affine.scale)) {
        throw std::invalid_argument(
            "scale has shape " + shape(affine.scale.rows(), affine.scale.columns()) + ", but an array of shape " +
            shape(rows, columns) + " in groups of " + std::to_string(affine.group_size) + " columns needs " +
            shape(1, groups) + (rows == 1 ? "." : " (the same for all rows) or " + shape(rows, groups) + "."));
    }
    if (affine.zero_point.rows() != affine.scale.rows() || affine.zero_point.columns() != groups) {
        throw std::invalid_argument("zero_point has shape " +
                                    shape(affine.zero_point.rows(), affine.zero_point.columns()) +
                                    ", but scale has shape " + shape(affine.scale.rows(), groups) +
                                    "; each scale needs its own zero point.");
    }
    for (std::size_t row = 0; row < affine.scale.rows(); ++row) {
        for (std::size_t group = 0; group < groups; ++group) {
            const float s = affine.scale.row(row)[group];
            if (std::isfinite(s) && s > 0) continue;
            throw std::invalid_argument("scale at row " + std::to_string(row) + ", group " + std::to_string(group) +
                                        " is " + std::to_string(s) +
                                        ", but a scale must be positive and finite; an all-zero group can have "
                                        "any positive scale, such as 1.");
        }
    }
}

inline void check_range(const Affine& affine, std::int32_t low, std::int32_t high) {
    const std::string range = "[" + std::to_string(low) + ", " + std::to_string(high) + "]";
    if (low > high) {
        throw std::invalid_argument("The range of codes " + range + " is empty: low must not exceed high.");
    }
    for (const std::int32_t z : affine.zero_point.flat()) {
        if (low <= z && z <= high) continue;
        throw std::invalid_argument("zero_point holds " + std::to_string(z) + ", which is outside the range of codes " +
                                    range + "; the zero point is the code of the weight 0, so it must be a code.");
    }
}

inline void check_finite(Matrix<const float> weights) {
    std::size_t nan = 0;
    std::size_t infinite = 0;
    for (const float w : weights.flat()) {
        nan += std::isnan(w);
        infinite += std::isinf(w);
    }
    if (nan + infinite == 0) return;
    throw std::invalid_argument("weights of shape " + shape(weights.rows(), weights.columns()) + " hold " +
                                std::to_string(nan) + " NaN and " + std::to_string(infinite) +
                                " infinite values, but only finite weights can be quantized; look for a training "
                                "run that diverged.");
}

}  // namespace detail

/// `code = clamp(round_half_to_even(weight / scale) + zero_point, low, high)`.
///
/// The division is in float32, as the ONNX standard has it, so the codes equal those
/// of QuantizeLinear for the same arrays. Throws std::invalid_argument on weights that
/// are not finite, scales that are not positive, and shapes that do not fit.
inline std::vector<std::int32_t> quantize(Matrix<const float> weights, const Affine& affine, std::int32_t low,
                                          std::int32_t high, int threads = 1) {
    detail::check(affine, weights.rows(), weights.columns());
    detail::check_range(affine, low, high);
    detail::check_finite(weights);
    std::vector<std::int32_t> codes(weights.rows() * weights.columns());
    for_each_row(weights.rows(), threads, [&](std::size_t row) {
        const Span<const float> in = weights.row(row);
        std::int32_t* out = codes.data() + row * weights.columns();
        affine.for_each_column(row, in.size(), [&](std::size_t column, float scale, std::int32_t zero_point) {
            // Clamping before rounding gives the same code, as the bounds are whole, and
            // keeps quotients that overflow float32 or int32 in range. Doubles hold both exactly.
            const double lowest = static_cast<double>(low) - zero_point;
            const double highest = static_cast<double>(high) - zero_point;
            const float quotient = in[column] / scale;
            const double clamped = std::clamp(static_cast<double>(quotient), lowest, highest);
            out[column] = static_cast<std::int32_t>(std::llrint(clamped) + zero_point);
        });
    });
    return codes;
}

/// `weight = (code - zero_point) * scale`: the inverse of `quantize` up to half a scale
/// for every weight that was not clamped.
inline std::vector<float> dequantize(Matrix<const std::int32_t> codes, const Affine& affine, int threads = 1) {
    detail::check(affine, codes.rows(), codes.columns());
    std::vector<float> weights(codes.rows() * codes.columns());
    for_each_row(codes.rows(), threads, [&](std::size_t row) {
        const Span<const std::int32_t> in = codes.row(row);
        float* out = weights.data() + row * codes.columns();
        affine.for_each_column(row, in.size(), [&](std::size_t column, float scale, std::int32_t zero_point) {
            out[column] = static_cast<float>(std::int64_t{in[column]} - zero_point) * scale;
        });
    });
    return weights;
}

}  // namespace whit
