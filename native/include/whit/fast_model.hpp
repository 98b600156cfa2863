// The adaptive model behind the codec's profile `fast`: the tables that codes are told by, eight rows at a time.
//
// Codes come column by column, eight rows of a column at once: a block. A symbol is one of 16: a code of -7 to 7, or
// that it is beyond. Two things choose its table: the magnitude to be expected, from the means of its row and of the
// blocks just before, and in 3x3 kernels from the codes to the left and above; and how much these two agree on a sign.
// Where they expect a negative code, its opposite is told.
//
// What the next block is told by does not depend on the block just being read, and tables change only when twice as
// many codes have been counted, so nothing waits for the last symbol.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "whit/lanes.hpp"
#include "whit/neighbourhood.hpp"
#include "whit/symbol_model.hpp"

namespace whit::detail {

inline constexpr unsigned share_bits = 14;
inline constexpr std::uint32_t all_shares = 1u << share_bits;

/// The shares of 16 symbols, as often as each was counted when they were last renewed.
struct alignas(64) FastTable {
    static constexpr std::uint32_t symbols = 16;
    static constexpr std::uint32_t one = 64;  ///< What a symbol counts.

    struct Share {
        std::uint16_t below;  ///< The shares of all symbols before it.
        std::uint16_t size;   ///< At least 1.
    };

    std::array<std::uint16_t, symbols> end{};
    std::array<Share, symbols> share{};
    std::array<std::uint32_t, symbols> count{};
    std::uint32_t counted = 0;

    void renew() {
        std::uint32_t sum = 0;
        for (const std::uint32_t each : count) sum += each;
        if (sum == counted) return;
        counted = sum;
        const std::uint64_t scale = (std::uint64_t{all_shares - symbols} << 32) / sum;
        std::uint32_t below = 0;
        sum = 0;
        for (std::uint32_t s = 0; s < symbols; ++s) {
            sum += count[s];
            const auto rounded = s + 1 + static_cast<std::uint32_t>(sum * scale >> 32);
            const std::uint32_t next = s + 1 < symbols ? rounded : all_shares;
            share[s] = {static_cast<std::uint16_t>(below), static_cast<std::uint16_t>(next - below)};
            end[s] = static_cast<std::uint16_t>(next);
            below = next;
        }
    }
};

/// What the codes of a block are told by: the distance of each one's table from the first, in bytes; and -1 where the
/// opposite is told, else 0.
struct BlockContext {
    Eight table;
    Eight flip;
};

class FastModel {
public:
    static constexpr std::size_t block = 8;
    static constexpr int zero = 7;    ///< The symbol of 0.
    static constexpr int beyond = 8;  ///< What stands for the codes beyond -7 to 7, by the symbol 15.

    /// What stands to the left of a column of 3x3 kernels: the codes one and three columns before, and -1 or 0 for
    /// whether they are in the same line and the same kernel, and so tell of signs.
    struct Before {
        const std::int16_t* left;
        const std::int16_t* above;
        Eight left_tells, above_tells;
    };

    /// `mean`: the mean magnitude with which rows start, in units of 1/32.
    FastModel(std::size_t rows, std::uint8_t mean)
        : tables_(start()), row_means_((rows + block - 1) / block * block, static_cast<std::int16_t>(mean << 5)),
          mean_(Eight::all(mean << 5)) {}

    BlockContext in_kernels(std::size_t row, const Before& before) const {
        const Eight left = Eight::load(before.left + row), above = Eight::load(before.above + row);
        const Eight expected = ((row_mean(row) + mean_) >> 1) + ((magnitude(left) + magnitude(above)) << 9);
        const Eight sign = (within_two(left) & before.left_tells) + (within_two(above) & before.above_tells);
        const Eight agreement = least(magnitude(sign), Eight::all(agreements - 1));
        return {(level(expected) * Eight::all(agreements) + agreement) * Eight::all(sizeof(FastTable)), sign >> 15};
    }

    BlockContext in_matrix(std::size_t row) const {
        return {level(row_mean(row) + mean_) * Eight::all(agreements * sizeof(FastTable)), Eight::all(0)};
    }

    FastTable& at(std::int16_t table) {
        return *reinterpret_cast<FastTable*>(reinterpret_cast<char*>(tables_.data()) + static_cast<std::uint16_t>(table));
    }

    /// Takes note of the codes that `count` rows from `row` on got; all further ones are 0.
    void push(std::size_t row, Eight codes, std::size_t count) {
        const Eight found = magnitude(codes), before = row_mean(row);
        (before + (found << 5) - (before >> 5)).store(row_means_.data() + row);
        if (count == block) mean_ = mean_ + (sum(found) << 5) - (mean_ >> 2);
        counted_ += count;
        if (counted_ >= renewal_) renew();
    }

private:
    static constexpr std::uint32_t levels = 21;
    static constexpr std::uint32_t agreements = 3;

    static Eight within_two(Eight codes) { return least(most(codes, Eight::all(-2)), Eight::all(2)); }

    // Of a magnitude in units of 1/2048: in steps of 1/16 up to 1/2, of 1/4 up to 2, of 1 up to 8.
    static Eight level(Eight expected) {
        const Eight none = Eight::all(0);
        return least(expected >> 7, Eight::all(8)) +
               least(most(expected - Eight::all(1024), none) >> 9, Eight::all(6)) +
               (most(expected - Eight::all(4096), none) >> 11);
    }

    Eight row_mean(std::size_t row) const { return Eight::load(row_means_.data() + row); }

    void renew() {
        for (FastTable& table : tables_) table.renew();
        renewal_ *= 2;
    }

    static const std::vector<FastTable>& start();
    static FastTable start(std::uint32_t level, std::uint32_t agreement);

    std::vector<FastTable> tables_;
    // Both in units of 1/1024, and so at most 8192.
    std::vector<std::int16_t> row_means_;
    Eight mean_;
    std::size_t counted_ = 0;
    std::size_t renewal_ = 128;
};

/// The two-sided geometric distribution of a level's magnitude, of which so many sixteenths are positive.
inline FastTable FastModel::start(std::uint32_t level, std::uint32_t agreement) {
    constexpr std::uint32_t weight = 32 * FastTable::one;
    constexpr std::array<std::uint32_t, agreements> positive = {8, 12, 14};
    const std::uint32_t sixty_fourths = level < 8 ? 4 * level + 2 : level < 14 ? 16 * level - 88 : 64 * level - 736;
    const unsigned log = floor_log2(sixty_fourths);
    const std::size_t half_octave = 2 * log + (sixty_fourths >> (log - 1) & 1);
    FastTable table;
    std::uint32_t rest = Geometric::nonzero[half_octave];
    table.count[zero] = 1 + ((65536 - rest) * weight >> 16);
    for (std::size_t m = 1; m < beyond; ++m) {
        const std::uint32_t more = rest * Geometric::more[half_octave] >> 16, here = (rest - more) * weight >> 16;
        table.count[zero + m] = 1 + here * positive[agreement] / 16;
        table.count[zero - m] = 1 + here * (16 - positive[agreement]) / 16;
        rest = more;
    }
    table.count[zero + beyond] = 1 + (rest * weight >> 16);
    table.renew();
    return table;
}

inline const std::vector<FastTable>& FastModel::start() {
    static const std::vector<FastTable> tables = [] {
        std::vector<FastTable> made;
        for (std::uint32_t i = 0; i < levels * agreements; ++i) made.push_back(start(i / agreements, i % agreements));
        return made;
    }();
    return tables;
}

}  // namespace whit::detail
