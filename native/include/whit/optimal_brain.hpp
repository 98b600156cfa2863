// Codes that do the least harm for their bits: the Optimal Brain Surgeon recursion with a rate term.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "whit/parallel.hpp"
#include "whit/quantize.hpp"
#include "whit/span.hpp"
#include "whit/symbol_model.hpp"

namespace whit {

/// How the loss grows with the error of weights: by `row_weight[r] * e_r^T H e_r`, for the errors `e_r` of row r.
///
/// `hessian` holds one symmetric positive semi-definite matrix of `columns` x `columns` for each group of rows, one
/// below the other; the rows are dealt to the groups in order, as many to each (one group: all rows share it).
struct Curvature {
    Matrix<const double> hessian;
    Span<const double> row_weight;
    double damping;  ///< Added to the diagonal, as a share of its mean; makes a singular matrix regular.
};

/// Codes, and what they cost by the model that chose them.
struct Rounding {
    std::vector<std::int32_t> codes;
    double bits = 0;
    double loss = 0;
};

namespace detail {

/// `U` upper triangular with `H + damping * mean(diag(H)) * I = U U^T`, in blocks; throws where H is not semi-definite.
///
/// A matrix of zeros stands for no knowledge at all, and is taken for the identity.
inline std::vector<double> upper_factor(Matrix<const double> hessian, double damping, int threads) {
    const std::size_t n = hessian.columns();
    std::vector<double> a(hessian.flat().begin(), hessian.flat().end());
    double trace = 0;
    for (std::size_t i = 0; i < n; ++i) trace += a[i * n + i];
    const double mean = n == 0 ? 0 : trace / static_cast<double>(n);
    for (std::size_t i = 0; i < n; ++i) a[i * n + i] += mean > 0 ? std::max(damping, 1e-12) * mean : 1.0;
    constexpr std::size_t width = 48;
    std::vector<double> panel(width * n);  // The block's columns of U, each contiguous.
    for (std::size_t end = n; end > 0;) {
        const std::size_t begin = end > width ? end - width : 0;
        for (std::size_t k = end; k-- > begin;) {
            double pivot = a[k * n + k];
            const double floor = 1e-14 * (mean > 0 ? mean : 1.0);
            if (!(pivot > -1e-6 * (mean > 0 ? mean : 1.0))) {
                throw std::invalid_argument("hessian is not positive semi-definite: pivot " + std::to_string(k) +
                                            " is " + std::to_string(pivot) +
                                            "; a second moment X X^T is, up to rounding. Raise damping.");
            }
            pivot = std::sqrt(std::max(pivot, floor));
            a[k * n + k] = pivot;
            double* column = panel.data() + (k - begin) * n;
            for (std::size_t i = 0; i < k; ++i) column[i] = a[i * n + k] /= pivot;
            for (std::size_t i = 0; i < k; ++i) {
                double* row = a.data() + i * n;
                for (std::size_t j = std::max(begin, i); j < k; ++j) row[j] -= column[i] * column[j];
            }
        }
        const auto trailing = [&](std::size_t i) {
            double* row = a.data() + i * n;
            for (std::size_t k = 0; k < end - begin; ++k) {
                const double* column = panel.data() + k * n;
                const double factor = column[i];
                for (std::size_t j = i; j < begin; ++j) row[j] -= factor * column[j];
            }
        };
        for_each_row(begin, begin > 256 ? threads : 1, trailing);
        end = begin;
    }
    return a;
}

inline void check(const Curvature& curvature, std::size_t rows, std::size_t columns) {
    const Matrix<const double>& h = curvature.hessian;
    const std::size_t groups = columns == 0 ? 1 : h.rows() / columns;
    if (h.columns() != columns || groups == 0 || groups * columns != h.rows() || (rows % groups) != 0) {
        throw std::invalid_argument("hessian has shape " + shape(h.rows(), h.columns()) + ", but weights of shape " +
                                    shape(rows, columns) + " need one matrix of " + shape(columns, columns) +
                                    ", or one below the other for groups that divide the rows.");
    }
    if (curvature.row_weight.size() != rows) {
        throw std::invalid_argument("row_weight has " + std::to_string(curvature.row_weight.size()) +
                                    " values, but the weights have " + std::to_string(rows) + " rows.");
    }
    for (const double value : h.flat()) {
        if (!std::isfinite(value)) throw std::invalid_argument("hessian holds NaN or infinite values.");
    }
    for (std::size_t i = 0; i < h.rows(); ++i) {
        if (h.row(i)[i % columns] < 0) throw std::invalid_argument("hessian has a negative value on its diagonal.");
    }
    for (const double value : curvature.row_weight) {
        if (!(std::isfinite(value) && value >= 0)) {
            throw std::invalid_argument("row_weight holds " + std::to_string(value) +
                                        ", but what a row is worth is finite and not negative.");
        }
    }
    if (!(std::isfinite(curvature.damping) && curvature.damping >= 0)) {
        throw std::invalid_argument("damping is " + std::to_string(curvature.damping) +
                                    ", but it is a share of the diagonal: 0 or more.");
    }
}

/// The columns of a weight matrix on their way through the recursion, stored transposed: a column is contiguous.
class Recursion {
public:
    Recursion(Matrix<const float> weights, const Curvature& curvature, int threads)
        : rows_(weights.rows()), columns_(weights.columns()), threads_(threads) {
        const std::size_t groups = columns_ == 0 ? 1 : curvature.hessian.rows() / columns_;
        share_ = rows_ / groups;
        for (std::size_t g = 0; g < groups && columns_ > 0; ++g) {
            factors_.push_back(upper_factor({curvature.hessian.row(g * columns_).data(), columns_, columns_},
                                            curvature.damping, threads));
        }
        reset(weights);
    }

    void reset(Matrix<const float> weights) {
        wanted_.resize(rows_ * columns_);
        for (std::size_t i = 0; i < rows_; ++i) {
            for (std::size_t j = 0; j < columns_; ++j) wanted_[j * rows_ + i] = weights.row(i)[j];
        }
    }

    /// Calls `decide(column, wanted)` column by column; it puts the weights that are kept in place of `wanted`.
    /// What it misses is made up for, as well as can be, by the columns still to come.
    ///
    /// With `H = U U^T` the loss is the sum over j of `(U_jj e_j + sum of U_ij e_i over i < j)^2`, so each column
    /// aims at `w_j + sum of U_ij e_i / U_jj`, which is what the OBS update of the inverse gives too.
    template <typename Decide>
    void run(Matrix<const float> weights, const Decide& decide) {
        constexpr std::size_t width = 32;
        std::vector<float> errors(width * rows_);
        for (std::size_t begin = 0; begin < columns_; begin += width) {
            const std::size_t end = std::min(begin + width, columns_);
            for (std::size_t j = begin; j < end; ++j) {
                float* wanted = wanted_.data() + j * rows_;
                spread(errors, begin, j, j);
                decide(j, wanted);
                float* error = errors.data() + (j - begin) * rows_;
                for (std::size_t i = 0; i < rows_; ++i) error[i] = weights.row(i)[j] - wanted[i];
            }
            const std::size_t rest = columns_ - end;
            for_each_row(rest, rest * rows_ > 4096 ? threads_ : 1,
                         [&](std::size_t k) { spread(errors, begin, end, end + k); });
        }
    }

    double pivot(std::size_t row, std::size_t column) const {
        return factors_[row / share_][column * columns_ + column];
    }

private:
    /// What the columns from `begin` to `end` missed, made up for by column `j`.
    void spread(const std::vector<float>& errors, std::size_t begin, std::size_t end, std::size_t j) {
        float* wanted = wanted_.data() + j * rows_;
        for (std::size_t g = 0; g < factors_.size(); ++g) {
            const std::vector<double>& factor = factors_[g];
            const double inverse = 1 / factor[j * columns_ + j];
            for (std::size_t i = begin; i < end; ++i) {
                const auto by = static_cast<float>(factor[i * columns_ + j] * inverse);
                const float* error = errors.data() + (i - begin) * rows_;
                for (std::size_t row = g * share_; row < (g + 1) * share_; ++row) wanted[row] += by * error[row];
            }
        }
    }

    std::size_t rows_;
    std::size_t columns_;
    std::size_t share_ = 1;
    int threads_;
    std::vector<std::vector<double>> factors_;
    std::vector<float> wanted_;
};

}  // namespace detail

/// Codes that minimise `sum of row_weight * e^T H e + lambda * bits`, greedily, column by column (Hassibi & Stork
/// 1993; Frantar et al. 2023), with the bits of an adaptive model that learns as it goes.
///
/// For each weight the code nearest to what the column aims at, its two neighbours, the next one towards zero and
/// zero itself are tried. Where `mask`, of the shape of the weights or empty, is 0, the weight stays zero. With `sweeps` above 1 the whole is done again, with the model that the sweep before left.
/// Invariants: with lambda 0 and a diagonal H the codes are those of `quantize`; the codes of a column do not depend
/// on `threads`, since codes are chosen in order and only the spreading of errors is shared out.
inline Rounding optimal_brain(Matrix<const float> weights, const Curvature& curvature, const Affine& affine,
                              std::int32_t low, std::int32_t high, double lambda, int sweeps = 1, int threads = 1,
                              Matrix<const std::uint8_t> mask = {nullptr, 0, 0}) {
    detail::check(affine, weights.rows(), weights.columns());
    detail::check_range(affine, low, high);
    detail::check_finite(weights);
    detail::check(curvature, weights.rows(), weights.columns());
    if (!(std::isfinite(lambda) && lambda >= 0)) {
        throw std::invalid_argument("lambda is " + std::to_string(lambda) + ", but a price of a bit is 0 or more.");
    }
    if (sweeps < 1) throw std::invalid_argument("sweeps is " + std::to_string(sweeps) + ", but 1 is the least.");
    const std::size_t rows = weights.rows();
    const std::size_t columns = weights.columns();
    const bool masked = mask.flat().size() > 0;
    if (masked && (mask.rows() != rows || mask.columns() != columns)) {
        throw std::invalid_argument("mask has shape " + detail::shape(mask.rows(), mask.columns()) +
                                    ", but the weights have shape " + detail::shape(rows, columns) + ".");
    }
    Rounding result;
    result.codes.assign(rows * columns, 0);
    detail::Recursion recursion(weights, curvature, threads);
    // The first sweep starts where codes to nearest would put the codec, later ones where the codes before would.
    std::uint64_t magnitudes = 0;
    std::vector<std::int32_t> nearest_codes(rows * columns);
    for (std::size_t i = 0; i < rows; ++i) {
        affine.for_each_column(i, columns, [&](std::size_t j, float scale, std::int32_t zero) {
            const float bounded = std::clamp(weights.row(i)[j] / scale, static_cast<float>(low - zero),
                                             static_cast<float>(high - zero));
            nearest_codes[j * rows + i] = static_cast<std::int32_t>(std::llrint(bounded));
            magnitudes += static_cast<std::uint64_t>(std::abs(nearest_codes[j * rows + i]));
        });
    }
    const Layout layout = layout_of(nearest_codes, rows, columns, 0);
    SymbolModel model(layout);
    const auto neighbourhood = [&] {
        return Neighbourhood(rows, Neighbourhood::mean_byte(magnitudes, rows * columns), layout);
    };
    Neighbourhood near = neighbourhood();
    const auto decide = [&](std::size_t j, float* wanted) {
        near.begin_column();
        const std::size_t group = j / static_cast<std::size_t>(affine.group_size);
        for (std::size_t i = 0; i < rows; ++i) {
            const std::size_t own = affine.scale.rows() == 1 ? 0 : i;
            const float scale = affine.scale.row(own)[group];
            const std::int32_t zero = affine.zero_point.row(own)[group];
            const std::int32_t lowest = low - zero;
            const std::int32_t highest = high - zero;
            const double quotient = static_cast<double>(wanted[i] / scale);
            const double bounded = std::clamp(quotient, static_cast<double>(lowest), static_cast<double>(highest));
            const bool gone = masked && mask.row(i)[j] == 0;
            const auto nearest = gone ? 0 : static_cast<std::int32_t>(std::llrint(bounded));
            const std::int32_t towards = nearest > 0 ? -1 : 1;
            const Context context = near.context(i);
            std::int32_t best = nearest;
            const double pivot = recursion.pivot(i, j) * static_cast<double>(scale);
            const double price = curvature.row_weight[i] * pivot * pivot;
            if (lambda > 0 && !gone) {
                double lowest_cost = 0;
                const std::array<std::int32_t, 5> tried = {nearest, nearest + towards, nearest - towards,
                                                           nearest + 2 * towards, 0};
                for (std::size_t k = 0; k < tried.size(); ++k) {
                    const std::int32_t code = tried[k];
                    if (code < lowest || code > highest) continue;
                    const double miss = quotient - code;
                    const double cost = price * miss * miss + lambda * static_cast<double>(model.bits(code, context));
                    if (k == 0 || cost < lowest_cost) {
                        lowest_cost = cost;
                        best = code;
                    }
                }
            }
            result.bits += static_cast<double>(model.bits(best, context));
            result.loss += price * (quotient - best) * (quotient - best);
            model.update(best, context);
            near.push(i, best);
            result.codes[i * columns + j] = best + zero;
            wanted[i] = static_cast<float>(best) * scale;
        }
    };
    for (int sweep = 0; sweep < sweeps; ++sweep) {
        if (sweep > 0) {
            magnitudes = 0;
            for (std::size_t i = 0; i < rows; ++i) {
                affine.for_each_column(i, columns, [&](std::size_t j, float, std::int32_t zero) {
                    magnitudes += static_cast<std::uint64_t>(std::abs(result.codes[i * columns + j] - zero));
                });
            }
            recursion.reset(weights);
            near = neighbourhood();
        }
        result.bits = result.loss = 0;
        recursion.run(weights, decide);
    }
    return result;
}

/// The weights that minimise `e^T H e` where `mask` is 0 means a weight of zero: for each row the surviving weights
/// solve `H_ss w_s = H_s: w` (the closed form of the OBS correction for a set of removed weights).
inline std::vector<float> update_params(Matrix<const float> weights, Matrix<const std::uint8_t> mask,
                                        Matrix<const double> hessian, double damping, int threads = 1) {
    const std::size_t rows = weights.rows();
    const std::size_t n = weights.columns();
    if (mask.rows() != rows || mask.columns() != n) {
        throw std::invalid_argument("mask has shape " + detail::shape(mask.rows(), mask.columns()) +
                                    ", but the weights have shape " + detail::shape(rows, n) + ".");
    }
    const std::vector<double> ones(rows, 1.0);
    const Curvature curvature{hessian, ones, damping};
    detail::check_finite(weights);
    detail::check(curvature, rows, n);
    std::vector<float> result(rows * n, 0.0F);
    const std::size_t groups = n == 0 ? 1 : hessian.rows() / n;
    const std::size_t share = std::max<std::size_t>(rows / groups, 1);
    for_each_row(rows, threads, [&](std::size_t row) {
        std::vector<std::size_t> kept;
        for (std::size_t j = 0; j < n; ++j) {
            if (mask.row(row)[j] != 0) kept.push_back(j);
        }
        const std::size_t k = kept.size();
        if (k == 0) return;
        const Matrix<const double> h(hessian.row(row / share * n).data(), n, n);
        double trace = 0;
        for (std::size_t j = 0; j < n; ++j) trace += h.row(j)[j];
        const double extra = trace > 0 ? std::max(damping, 1e-12) * trace / static_cast<double>(n) : 1.0;
        // The damped matrix pulls the change towards zero, so it stands on both sides of the equation.
        std::vector<double> part(k * k);
        std::vector<double> change(k, 0.0);
        for (std::size_t a = 0; a < k; ++a) {
            for (std::size_t b = 0; b < k; ++b) part[a * k + b] = h.row(kept[a])[kept[b]];
            part[a * k + a] += extra;
            for (std::size_t j = 0; j < n; ++j) {
                if (mask.row(row)[j] == 0) change[a] += h.row(kept[a])[j] * static_cast<double>(weights.row(row)[j]);
            }
        }
        const std::vector<double> u = detail::upper_factor({part.data(), k, k}, 0.0, 1);
        for (std::size_t a = k; a-- > 0;) {
            for (std::size_t b = a + 1; b < k; ++b) change[a] -= u[a * k + b] * change[b];
            change[a] /= u[a * k + a];
        }
        for (std::size_t a = 0; a < k; ++a) {
            for (std::size_t b = 0; b < a; ++b) change[a] -= u[b * k + a] * change[b];
            change[a] /= u[a * k + a];
        }
        for (std::size_t a = 0; a < k; ++a) {
            result[row * n + kept[a]] = static_cast<float>(static_cast<double>(weights.row(row)[kept[a]]) + change[a]);
        }
    });
    return result;
}

}  // namespace whit
