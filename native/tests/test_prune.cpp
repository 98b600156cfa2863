#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "check.hpp"
#include "whit/prune.hpp"

using Mask = std::vector<std::uint8_t>;
using Scores = std::vector<float>;

TEST("the smallest scores go") {
    CHECK(whit::prune(Scores{3, 1, 2, 0}, 2) == Mask{1, 0, 1, 0});
}

TEST("of equal scores the first goes first, and -0 equals 0") {
    CHECK(whit::prune(Scores{1, 1, 1, 1}, 3) == Mask{0, 0, 0, 1});
    CHECK(whit::prune(Scores{0.0f, -0.0f}, 1) == Mask{0, 1});
}

TEST("none and all can be pruned") {
    CHECK(whit::prune(Scores{1, 2}, 0) == Mask{1, 1});
    CHECK(whit::prune(Scores{1, 2}, 2) == Mask{0, 0});
    CHECK(whit::prune(Scores{}, 0).empty());
}

TEST("an infinite score protects a weight") {
    CHECK(whit::prune(Scores{std::numeric_limits<float>::infinity(), 5, 7}, 2) == Mask{1, 0, 0});
}

TEST("exactly count are pruned whatever the ties") {
    Scores scores(1000);
    for (std::size_t i = 0; i < scores.size(); ++i) scores[i] = static_cast<float>(i * 7919 % 13);
    for (const std::int64_t count : {1, 76, 77, 500, 999}) {
        const Mask mask = whit::prune(scores, count);
        CHECK(std::count(mask.begin(), mask.end(), 0) == count);
    }
}

TEST("impossible counts and NaN are named") {
    CHECK_ERROR(whit::prune(Scores{1, 2}, 3), "count is 3, but of 2 scores");
    CHECK_ERROR(whit::prune(Scores{1, 2}, -1), "count is -1");
    CHECK_ERROR(whit::prune(Scores{1, std::numeric_limits<float>::quiet_NaN()}, 1), "1 NaN among 2 values");
}
