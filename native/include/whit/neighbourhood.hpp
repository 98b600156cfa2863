// What stands near the code that comes next: the contexts by which `SymbolModel` chooses its distributions.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "whit/span.hpp"

namespace whit {

/// What the columns of a matrix are: no two alike, or the nine places of 3x3 kernels over and over.
enum class Layout : std::uint8_t { matrix, kernels };

namespace detail {

inline unsigned floor_log2(std::uint32_t value) {
#if defined(__GNUC__)
    return 31u - static_cast<unsigned>(__builtin_clz(value));
#else
    unsigned log = 0;
    for (unsigned half = 16; half > 0; half /= 2) {
        if (value >> half != 0) {
            value >>= half;
            log += half;
        }
    }
    return log;
#endif
}

}  // namespace detail

/// The distributions that the next code is told by. Signs that are each other's opposite share one, `flipped`.
struct Context {
    std::uint16_t level;   ///< In [0, Neighbourhood::levels): the magnitude to be expected, in quarter octaves.
    std::uint16_t local;   ///< In [0, Neighbourhood::locals).
    std::uint8_t recent;   ///< In [0, Neighbourhood::recents): the signs of the three codes to the left.
    std::uint8_t kernel;   ///< In [0, Neighbourhood::kernels): the codes one and three to the left.
    bool recent_flipped;
    bool kernel_flipped;
};

/// Decaying means of the magnitudes of its row and of all columns, and the three codes to its left.
///
/// In a 3x3 kernel these are the codes to the left in the kernel and the one above; signs of kernels are alike, and so
/// are magnitudes. Against levels and the last three signs alone this saves 3.5 % on ResNet-20. The code above in the
/// column, the one of the same place in the kernel before, and finer or longer means were tried: less than 0.1 %.
class Neighbourhood {
public:
    static constexpr std::size_t octaves = 12;
    static constexpr std::size_t levels = 4 * octaves;
    static constexpr std::size_t places = 9;
    static constexpr std::size_t locals = places * octaves * 9;
    static constexpr std::size_t recents = places * 14;
    static constexpr std::size_t kernels = places * 13;

    /// `mean`: see `mean_byte`. `column`: the first column's number in the whole matrix.
    Neighbourhood(std::size_t rows, std::uint8_t mean, Layout layout, std::size_t column = 0)
        : rows_(rows, Row{from_byte(mean), 0, 0, 0}), column_mean_(from_byte(mean)), layout_(layout),
          row_rate_(layout == Layout::kernels ? 6 : 5), place_(static_cast<unsigned>((column + places - 1) % places)) {}

    /// To be called before the first row of every column.
    void begin_column() { place_ = place_ + 1 == places ? 0 : place_ + 1; }

    Context context(std::size_t row) const {
        const Row& at = rows_[row];
        Context result{};
        const bool kernels = layout_ == Layout::kernels;
        const unsigned place = kernels ? place_ : 0;
        if (kernels) {
            const auto left = magnitude(at.left), next = magnitude(at.next), above = magnitude(at.above);
            const std::uint32_t near = 5 * left + next + 3 * above;
            result.level = level_of((13 * at.mean + 11 * column_mean_ + (near << unit)) >> 5);
            const unsigned pattern = 3 * std::min(left, 2u) + std::min(above, 2u);
            result.local = static_cast<std::uint16_t>((place * octaves + result.level / 4) * 9 + pattern);
        } else {
            result.level = level_of((at.mean + column_mean_) >> 1);
            const unsigned row_octave = level_of(at.mean) / 4u, column_octave = level_of(column_mean_) / 4u;
            result.local = static_cast<std::uint16_t>(row_octave * octaves + column_octave);
        }
        const int recent = 9 * sign(at.left) + 3 * sign(at.next) + sign(at.above);
        const int kernel = 5 * within_two(at.left) + within_two(at.above);
        result.recent = static_cast<std::uint8_t>(14 * place + magnitude(recent));
        result.kernel = static_cast<std::uint8_t>(13 * place + magnitude(kernel));
        result.recent_flipped = recent < 0;
        result.kernel_flipped = kernel < 0;
        return result;
    }

    /// Takes note of the code that `row` got in this column.
    void push(std::size_t row, std::int32_t symbol) {
        Row& at = rows_[row];
        const auto code = static_cast<std::int8_t>(std::clamp(symbol, -largest, largest));
        at.mean += (magnitude(code) << (unit - row_rate_)) - (at.mean >> row_rate_);
        column_mean_ += (magnitude(code) << (unit - 4)) - (column_mean_ >> 4);
        at.above = at.next;
        at.next = at.left;
        at.left = code;
    }

    /// The mean magnitude with which a neighbourhood starts, in 7 bits: `sum` of the magnitudes of `count` codes.
    static std::uint8_t mean_byte(std::uint64_t sum, std::uint64_t count) {
        if (count == 0) return 0;
        const std::uint64_t mean = (std::min(sum, count * largest) << unit) / count;
        std::uint8_t byte = 0;
        while (byte < 127 && from_byte(static_cast<std::uint8_t>(byte + 1)) <= mean) ++byte;
        return byte;
    }

private:
    struct Row {
        std::uint32_t mean;
        std::int8_t left, next, above;
    };

    static constexpr int largest = 127;
    static constexpr unsigned unit = 12;  // a mean of 1 is 1 << 12

    // Sums of comparisons, because std::clamp becomes branches that codes at random mislead: 20 % slower.
    static int sign(int code) { return (code > 0) - (code < 0); }
    static int within_two(int code) { return sign(code) + (code > 1) - (code < -1); }
    static std::uint32_t magnitude(int code) { return static_cast<std::uint32_t>(code < 0 ? -code : code); }

    // Eight steps an octave, from 8 / 4096 to 120.
    static std::uint32_t from_byte(std::uint8_t byte) { return (8u + (byte & 7u)) << (byte >> 3 & 15); }

    static std::uint16_t level_of(std::uint32_t expected) {
        if (expected < 64) return 0;
        const unsigned log = detail::floor_log2(expected);
        return static_cast<std::uint16_t>(std::min<unsigned>(levels - 1, 4 * (log - 6) + (expected >> (log - 2) & 3)));
    }

    std::vector<Row> rows_;
    std::uint32_t column_mean_;
    Layout layout_;
    unsigned row_rate_;
    unsigned place_;
};

/// Which layout suits codes that are told column by column, `centre` standing for 0.
///
/// Kernels are recognised by the signs of neighbours in their lines, which agree more often than not, by two standard
/// deviations of what chance would give. Only so many columns are looked at as hold 2^16 codes.
template <typename Codes>
Layout layout_of(const Codes& symbols, std::size_t rows, std::size_t columns, std::int32_t centre) {
    if (columns == 0 || columns % Neighbourhood::places != 0) return Layout::matrix;
    const std::size_t looked_at = std::min(symbols.size(), std::max(rows * 9, std::size_t{1} << 16));
    std::int64_t agreement = 0, pairs = 0;
    for (std::size_t column = 1; (column + 1) * rows <= looked_at; ++column) {
        if (column % 3 == 0) continue;
        const auto *here = symbols.data() + column * rows, *left = here - rows;
        for (std::size_t row = 0; row < rows; ++row) {
            const std::int32_t a = here[row] - centre, b = left[row] - centre;
            const int product = ((a > 0) - (a < 0)) * ((b > 0) - (b < 0));
            agreement += product;
            pairs += product != 0;
        }
    }
    return agreement > 0 && agreement * agreement > 4 * pairs ? Layout::kernels : Layout::matrix;
}

}  // namespace whit
