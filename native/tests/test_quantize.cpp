#include <cstdint>
#include <limits>
#include <vector>

#include "check.hpp"
#include "whit/quantize.hpp"

using Codes = std::vector<std::int32_t>;
using Weights = std::vector<float>;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();

// One row of weights, one scale and zero point for all of it.
Codes quantize_row(const Weights& weights, float scale, std::int32_t zero_point, std::int32_t low, std::int32_t high) {
    const whit::Affine affine{{&scale, 1, 1}, {&zero_point, 1, 1}, static_cast<std::int64_t>(weights.size())};
    return whit::quantize({weights.data(), 1, weights.size()}, affine, low, high);
}

}  // namespace

TEST("halves round to even") {
    CHECK(quantize_row({-2.5f, -1.5f, -0.5f, 0.5f, 1.5f, 2.5f}, 1.0f, 0, -8, 7) == Codes{-2, -2, 0, 0, 2, 2});
}

TEST("rounding comes before the zero point, as in QuantizeLinear") {
    CHECK(quantize_row({0.5f, 1.5f, -0.5f}, 1.0f, 3, 0, 15) == Codes{3, 5, 3});
}

TEST("codes saturate, even where the quotient overflows float32") {
    const float largest = std::numeric_limits<float>::max();
    CHECK(quantize_row({-largest, -9.0f, 9.0f, largest}, 1e-30f, 0, -8, 7) == Codes{-8, -8, 7, 7});
}

TEST("the full range of int32 is usable") {
    constexpr auto lowest = std::numeric_limits<std::int32_t>::min();
    constexpr auto highest = std::numeric_limits<std::int32_t>::max();
    CHECK(quantize_row({-1e20f, 0.0f, 1e20f}, 1.0f, highest, lowest, highest) == Codes{lowest, highest, highest});
}

TEST("each row and group has its own scale, and the last group may be short") {
    const Weights weights{1, 1, 1, 1, 1, 1};
    const Weights scale{1.0f, 0.5f, 0.25f, 0.125f};
    const Codes zero_point{0, 0, 0, 1};
    const whit::Affine affine{{scale.data(), 2, 2}, {zero_point.data(), 2, 2}, 2};
    const Codes codes = whit::quantize({weights.data(), 2, 3}, affine, -128, 127);
    CHECK(codes == Codes{1, 1, 2, 4, 4, 9});
    CHECK(whit::dequantize({codes.data(), 2, 3}, affine) == weights);
}

TEST("the number of threads changes nothing") {
    constexpr std::size_t rows = 7;
    constexpr std::size_t columns = 33;
    Weights weights(rows * columns);
    for (std::size_t i = 0; i < weights.size(); ++i) weights[i] = 0.37f * static_cast<float>(i % 91) - 15.0f;
    const float scale = 0.3f;
    const std::int32_t zero_point = 2;
    const whit::Affine affine{{&scale, 1, 1}, {&zero_point, 1, 1}, columns};
    const Codes one = whit::quantize({weights.data(), rows, columns}, affine, -100, 100, 1);
    for (const int threads : {2, 3, 64}) {
        CHECK(whit::quantize({weights.data(), rows, columns}, affine, -100, 100, threads) == one);
        CHECK(whit::dequantize({one.data(), rows, columns}, affine, threads) ==
              whit::dequantize({one.data(), rows, columns}, affine, 1));
    }
}

TEST("an empty matrix has no codes") {
    const whit::Affine affine{{nullptr, 1, 0}, {nullptr, 1, 0}, 4};
    CHECK(whit::quantize({nullptr, 3, 0}, affine, -8, 7, 2).empty());
    const float scale = 1.0f;
    const std::int32_t zero_point = 0;
    CHECK(whit::quantize({nullptr, 0, 4}, {{&scale, 1, 1}, {&zero_point, 1, 1}, 4}, -8, 7).empty());
}

TEST("mistakes are named") {
    const float nan = std::numeric_limits<float>::quiet_NaN();
    CHECK_ERROR(quantize_row({1, nan, infinity, -infinity}, 1.0f, 0, -8, 7), "hold 1 NaN and 2 infinite values");
    for (const float bad : {0.0f, -1.0f, nan, infinity}) {
        CHECK_ERROR(quantize_row({1}, bad, 0, -8, 7), "a scale must be positive and finite");
    }
    CHECK_ERROR(quantize_row({1}, 1.0f, 0, 7, -8), "[7, -8] is empty");
    CHECK_ERROR(quantize_row({1}, 1.0f, 9, -8, 7), "zero_point holds 9");

    const Weights weights(6, 1.0f);
    const Weights scale(4, 1.0f);
    const Codes zero_point(4, 0);
    const auto call = [&](std::size_t scale_rows, std::size_t groups, std::size_t zero_rows, std::int64_t group_size,
                          int threads) {
        whit::quantize({weights.data(), 2, 3},
                       {{scale.data(), scale_rows, groups}, {zero_point.data(), zero_rows, groups}, group_size}, -8, 7,
                       threads);
    };
    call(2, 2, 2, 2, 1);
    CHECK_ERROR(call(3, 1, 3, 3, 1), "scale has shape (3, 1)");
    CHECK_ERROR(call(2, 1, 2, 2, 1), "needs (1, 2) (the same for all rows) or (2, 2)");
    CHECK_ERROR(call(2, 2, 1, 2, 1), "zero_point has shape (1, 2), but scale has shape (2, 2)");
    CHECK_ERROR(call(2, 2, 2, 0, 1), "group_size is 0");
    CHECK_ERROR(call(2, 2, 2, 2, 0), "threads is 0");
}
