// Which weights to keep, given what each is worth.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "whit/span.hpp"

namespace whit {

/// A mask that is 0 at the `count` smallest scores and 1 elsewhere, in expected linear time.
///
/// Scores are ordered by (score, index), which is a total order: of equal scores the one
/// with the lower index goes first, so the mask does not depend on the standard library.
/// Infinite scores are allowed; a NaN has no place in an order and is an error.
inline std::vector<std::uint8_t> prune(Span<const float> scores, std::int64_t count) {
    if (count < 0 || static_cast<std::uint64_t>(count) > scores.size()) {
        throw std::invalid_argument("count is " + std::to_string(count) + ", but of " +
                                    std::to_string(scores.size()) + " scores between 0 and all can be pruned.");
    }
    const auto nan = std::count_if(scores.begin(), scores.end(), [](float score) { return std::isnan(score); });
    if (nan != 0) {
        throw std::invalid_argument("scores hold " + std::to_string(nan) + " NaN among " +
                                    std::to_string(scores.size()) +
                                    " values, and NaN cannot be ordered; check the weights and statistics they "
                                    "were made from.");
    }
    std::vector<std::size_t> order(scores.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::nth_element(order.begin(), order.begin() + count, order.end(), [&](std::size_t a, std::size_t b) {
        return scores[a] < scores[b] || (scores[a] == scores[b] && a < b);
    });
    std::vector<std::uint8_t> mask(scores.size(), 1);
    std::for_each(order.begin(), order.begin() + count, [&](std::size_t i) { mask[i] = 0; });
    return mask;
}

}  // namespace whit
