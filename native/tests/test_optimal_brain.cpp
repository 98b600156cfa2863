#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "check.hpp"
#include "whit/optimal_brain.hpp"

namespace {

struct Problem {
    std::size_t rows;
    std::size_t columns;
    std::vector<float> weights;
    std::vector<double> hessian;
    std::vector<double> row_weight;
    std::vector<float> scale;
    std::vector<std::int32_t> zero_point;

    whit::Rounding solve(double lambda, int sweeps = 1, int threads = 1, double damping = 0.01) const {
        return whit::optimal_brain({weights.data(), rows, columns},
                                   {{hessian.data(), columns, columns}, row_weight, damping}, grid(), -127, 127,
                                   lambda, sweeps, threads);
    }
    std::vector<std::int32_t> nearest() const {
        return whit::quantize({weights.data(), rows, columns}, grid(), -127, 127);
    }
    whit::Affine grid() const {
        return {{scale.data(), rows, 1}, {zero_point.data(), rows, 1}, static_cast<std::int64_t>(columns)};
    }
    double loss(const std::vector<std::int32_t>& codes) const {
        double sum = 0;
        for (std::size_t r = 0; r < rows; ++r) {
            const auto error = [&](std::size_t j) {
                const std::size_t at = r * columns + j;
                return static_cast<double>(weights[at]) - codes[at] * static_cast<double>(scale[r]);
            };
            for (std::size_t i = 0; i < columns; ++i) {
                for (std::size_t j = 0; j < columns; ++j) {
                    sum += row_weight[r] * error(i) * error(j) * hessian[i * columns + j];
                }
            }
        }
        return sum;
    }
};

// Weights and correlated inputs from a small generator of our own, the same everywhere.
Problem problem(std::size_t rows, std::size_t columns) {
    std::uint32_t state = 1;
    const auto next = [&] {
        state = state * 1664525U + 1013904223U;
        return static_cast<double>(state >> 8) / (1 << 24) - 0.5;
    };
    Problem p{rows, columns, {}, std::vector<double>(columns * columns, 0.0), std::vector<double>(rows, 1.0),
              std::vector<float>(rows, 0.1F), std::vector<std::int32_t>(rows, 0)};
    for (std::size_t i = 0; i < rows * columns; ++i) p.weights.push_back(static_cast<float>(2 * next()));
    for (std::size_t sample = 0; sample < 4 * columns; ++sample) {
        const double shared = next();
        std::vector<double> x(columns);
        for (double& value : x) value = next() + 2 * shared;
        for (std::size_t i = 0; i < columns; ++i) {
            for (std::size_t j = 0; j < columns; ++j) p.hessian[i * columns + j] += x[i] * x[j];
        }
    }
    return p;
}

}  // namespace

TEST("without correlation and without a price the codes are the nearest") {
    Problem p = problem(5, 70);
    for (std::size_t i = 0; i < 70; ++i) {
        for (std::size_t j = 0; j < 70; ++j) p.hessian[i * 70 + j] = i == j ? 1.0 + static_cast<double>(i) : 0.0;
    }
    CHECK(p.solve(0).codes == p.nearest());
}

TEST("correlated inputs make the recursion better than nearest, and its loss is the true one") {
    const Problem p = problem(6, 100);
    const auto found = p.solve(0, 1, 1, 0);
    const double loss = p.loss(found.codes);
    CHECK(loss < 0.6 * p.loss(p.nearest()));
    CHECK(std::abs(found.loss - loss) < 1e-3 * loss);
}

TEST("a dearer bit buys fewer bits for more loss") {
    const Problem p = problem(16, 64);
    double bits = std::numeric_limits<double>::infinity();
    double loss = -1;
    for (const double lambda : {0.0, 0.2, 2.0}) {
        const auto found = p.solve(lambda);
        CHECK(found.bits < bits && found.loss > loss);
        bits = found.bits;
        loss = found.loss;
    }
    CHECK(p.solve(1e12).codes == std::vector<std::int32_t>(16 * 64, 0));
}

TEST("codes do not depend on threads") {
    const Problem p = problem(40, 300);
    const auto one = p.solve(0.05, 2, 1);
    for (const int threads : {2, 3, 7}) {
        const auto many = p.solve(0.05, 2, threads);
        CHECK(many.codes == one.codes && many.bits == one.bits && many.loss == one.loss);
    }
}

TEST("zero and singular Hessians have a defined result") {
    Problem p = problem(3, 20);
    for (double& value : p.hessian) value = 0;
    CHECK(p.solve(0).codes == p.nearest());
    for (double& value : p.hessian) value = 1;  // Rank one.
    CHECK(std::isfinite(p.solve(0).loss));
}

TEST("bad curvature is named") {
    Problem p = problem(2, 3);
    p.hessian[0] = std::numeric_limits<double>::quiet_NaN();
    CHECK_ERROR(p.solve(0), "hessian holds NaN");
    p.hessian = {1, 2, 0, 2, 1, 0, 0, 0, 1};
    CHECK_ERROR(p.solve(0), "not positive semi-definite");
    p = problem(2, 3);
    p.row_weight[1] = -1;
    CHECK_ERROR(p.solve(0), "row_weight holds -1");
    p = problem(2, 3);
    CHECK_ERROR(p.solve(-1), "lambda is -1");
    CHECK_ERROR(p.solve(0, 0), "sweeps is 0");
}
