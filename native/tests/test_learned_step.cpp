#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "check.hpp"
#include "whit/learned_step.hpp"
#include "whit/quantize.hpp"

using Values = std::vector<float>;

namespace {

constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();

whit::Span<const float> view(const Values& values) { return {values.data(), values.size()}; }

Values rounded(const Values& x, const whit::Grid& grid, int threads = 1) {
    Values y(x.size());
    whit::round_values(view(x), grid, {y.data(), y.size()}, threads);
    return y;
}

Values waves(std::size_t size) {
    Values x(size);
    for (std::size_t i = 0; i < size; ++i) x[i] = 3.7f * std::sin(static_cast<float>(i * i % 1009));
    return x;
}

}  // namespace

TEST("values are rounded as quantize and dequantize round them") {
    const Values x = waves(1000);
    const float scale = 0.3f;
    const std::int32_t zero_point = 5;
    const whit::Affine affine{{&scale, 1, 1}, {&zero_point, 1, 1}, 1000};
    const auto codes = whit::quantize({x.data(), 1, x.size()}, affine, 0, 15);
    CHECK(rounded(x, {scale, -5, 10}) == whit::dequantize({codes.data(), 1, x.size()}, affine));
}

TEST("halves round to even, ends are clamped, and what is no number stays so") {
    const float infinity = std::numeric_limits<float>::infinity();
    CHECK(rounded({-2.5f, -1.5f, -0.5f, 0.5f, 1.5f, 2.5f}, {1.0f, -8, 7}) == Values{-2, -2, 0, 0, 2, 2});
    CHECK(rounded({-infinity, 1e30f, infinity}, {1e-30f, -8, 7}) == Values{-8e-30f, 7e-30f, 7e-30f});
    CHECK(std::isnan(rounded({not_a_number}, {1.0f, 0, 3})[0]));
}

TEST("gradients are those of the paper") {
    // q is -1, 0, 0.25, 1.5, 2.75, 3, 3.25 on a grid from 0 to 3.
    const Values x{-2.0f, 0.0f, 0.5f, 3.0f, 5.5f, 6.0f, 6.5f};
    const Values by_y{1, 2, 4, 8, 16, 32, 64};
    Values by_x(7);
    const auto found = whit::round_gradients(view(x), view(by_y), {2.0f, 0, 3}, {by_x.data(), 7});
    CHECK(by_x == Values{0, 0, 4, 8, 16, 0, 0});
    CHECK(found.scale == 4 * (0 - 0.25) + 8 * (2 - 1.5) + 16 * (3 - 2.75) + (32 + 64) * 3);
    CHECK(found.clamped == 1 + 2 + 32 + 64);
}

TEST("the number of threads changes no bit") {
    const Values x = waves(100003);
    const Values by_y = waves(100003);
    const whit::Grid grid{0.4f, -3, 4};
    Values one(x.size());
    const auto expected = whit::round_gradients(view(x), view(by_y), grid, {one.data(), one.size()}, 1);
    for (const int threads : {2, 5}) {
        Values other(x.size());
        const auto found = whit::round_gradients(view(x), view(by_y), grid, {other.data(), other.size()}, threads);
        CHECK(other == one);
        CHECK(found.scale == expected.scale);
        CHECK(found.clamped == expected.clamped);
        CHECK(rounded(x, grid, threads) == rounded(x, grid));
    }
}

TEST("steps and codes that make no grid are named") {
    CHECK_ERROR(rounded({1}, {0.0f, 0, 3}), "scale is 0");
    CHECK_ERROR(rounded({1}, {not_a_number, 0, 3}), "a step must be positive and finite");
    CHECK_ERROR(rounded({1}, {1.0f, 1, 3}), "The codes from 1 to 3 must include 0");
    CHECK(rounded({}, {1.0f, 0, 3}).empty());
}
