// Values on a grid, and how a loss changes with its step: what training through rounding does most.
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

/// The grid `scale * code` for the whole codes from `low` to `high`, the zero point taken off.
struct Grid {
    float scale;
    std::int32_t low;
    std::int32_t high;
};

/// What a loss changes by, per unit, besides with the values themselves.
struct StepGradients {
    double scale;    ///< With the step, by the estimate of Esser et al. 2020.
    double clamped;  ///< With what every value that was clamped became.
};

namespace detail {

constexpr std::size_t chunk = 1 << 14;  // Sums are made chunk by chunk, so that threads change nothing.
constexpr std::size_t lanes = 8;

inline void check(const Grid& grid) {
    constexpr std::int32_t most = 1 << 20;  // Up to here `nearest` is exact, with room to spare.
    if (!(std::isfinite(grid.scale) && grid.scale > 0)) {
        throw std::invalid_argument("scale is " + std::to_string(grid.scale) +
                                    ", but a step must be positive and finite.");
    }
    if (-most <= grid.low && grid.low <= 0 && 0 <= grid.high && grid.high <= most) return;
    throw std::invalid_argument("The codes from " + std::to_string(grid.low) + " to " + std::to_string(grid.high) +
                                " must include 0 and lie within 2^20 of it.");
}

// A quotient moved into the bounds; what is not a number stays so.
inline float clamped(float quotient, float low, float high) {
    const float from_below = quotient < low ? low : quotient;
    return high < from_below ? high : from_below;
}

// Half to even, as all whole numbers of this size and no others are floats beside 1.5 * 2^23.
inline float nearest(float x) {
    constexpr float large = 12582912.0f;
    return (x + large) - large;
}

template <typename Body>
void for_each_chunk(std::size_t size, int threads, const Body& body) {
    for_each_row((size + chunk - 1) / chunk, threads,
                 [&](std::size_t i) { body(i, i * chunk, std::min(size, (i + 1) * chunk)); });
}

}  // namespace detail

/// `y = clamp(round_half_to_even(x / scale), low, high) * scale`, the division in float32.
///
/// Bit for bit what `quantize` and `dequantize` give; NaN stays NaN. `y` has the size of `x`.
inline void round_values(Span<const float> x, const Grid& grid, Span<float> y, int threads = 1) {
    detail::check(grid);
    const auto low = static_cast<float>(grid.low);
    const auto high = static_cast<float>(grid.high);
    const float scale = grid.scale;
    detail::for_each_chunk(x.size(), threads, [&](std::size_t, std::size_t first, std::size_t last) {
        const float* in = x.data();
        float* out = y.data();
        for (std::size_t i = first; i < last; ++i) {
            out[i] = detail::nearest(detail::clamped(in[i] / scale, low, high)) * scale;
        }
    });
}

/// From the derivatives of a loss by `y = round_values(x)` those by `x`, by the scale and by what was clamped.
///
/// For `q = x / scale` strictly between `low` and `high` a derivative passes to `x`, and the scale gets it times
/// `round(q) - q`. Elsewhere none passes, and the scale gets it times `low` or `high` (Esser et al. 2020).
inline StepGradients round_gradients(Span<const float> x, Span<const float> by_y, const Grid& grid,
                                     Span<float> by_x, int threads = 1) {
    detail::check(grid);
    const auto low = static_cast<float>(grid.low);
    const auto high = static_cast<float>(grid.high);
    const float scale = grid.scale;
    std::vector<StepGradients> sums((x.size() + detail::chunk - 1) / detail::chunk);
    detail::for_each_chunk(x.size(), threads, [&](std::size_t place, std::size_t first, std::size_t last) {
        float by_scale[detail::lanes] = {};
        float by_clamped[detail::lanes] = {};
        const auto step = [&](std::size_t i, std::size_t lane) {
            const float q = x[i] / scale;
            const float c = detail::clamped(q, low, high);
            const float passed = static_cast<float>(low < q) * static_cast<float>(q < high) * by_y[i];
            by_x[i] = passed;
            // Inside this is round(q) - q, elsewhere the code at which q was clamped.
            by_scale[lane] += by_y[i] * detail::nearest(c) - passed * c;
            by_clamped[lane] += by_y[i] - passed;
        };
        std::size_t i = first;
        for (; i + detail::lanes <= last; i += detail::lanes) {
            for (std::size_t lane = 0; lane < detail::lanes; ++lane) step(i + lane, lane);
        }
        for (std::size_t lane = 0; i < last; ++i, ++lane) step(i, lane);
        for (std::size_t lane = 0; lane < detail::lanes; ++lane) {
            sums[place].scale += by_scale[lane];
            sums[place].clamped += by_clamped[lane];
        }
    });
    StepGradients total{0, 0};
    for (const auto& sum : sums) {
        total.scale += sum.scale;
        total.clamped += sum.clamped;
    }
    return total;
}

}  // namespace whit
