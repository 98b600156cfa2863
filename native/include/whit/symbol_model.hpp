// What integer codes of weights look like: an adaptive model of each code, given those before it.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <vector>

#include "whit/adaptive_bit.hpp"

namespace whit {

/// The largest magnitude that can be coded.
constexpr std::int32_t largest_code = (1 << 24) - 1;

/// Models a matrix of codes, one row an output channel, column by column (row after row in each).
///
/// A code is a chain of decisions: is it zero, is it negative, is it larger than 1, than 2, ..., than 14, and beyond that
/// an Elias-gamma number. Each decision is learned in two contexts: how large the row's last codes were, with the code
/// to the left; and how large the row's and the column's were, with the code above. Column by column, so that a
/// quantizer that decides in that order can ask what a code will cost.
///
/// The same chain serves whoever follows it: `coder.bit(pair, outcome)` writes the outcome, or reads it and gives it
/// back, or adds up what it costs.
class SymbolModel {
public:
    explicit SymbolModel(std::size_t rows) : rows_(rows) {}

    /// Codes the next code of the scan. A coder that reads ignores `symbol`; the code is returned.
    template <typename Coder>
    std::int32_t code(Coder& coder, std::int32_t symbol) {
        Row& row = rows_[place_];
        const std::int32_t above = place_ > 0 ? rows_[place_ - 1].code : 0;
        const int left = std::min(2, magnitude(row.code));
        const int up = std::min(2, magnitude(above));
        const std::size_t first = level((row.mean + column_) / 2) * 3 + static_cast<std::size_t>(left);
        const std::size_t second = level((3 * row.mean + column_) / 4) * 3 + static_cast<std::size_t>(up);
        const std::size_t signs = static_cast<std::size_t>((sign(row.code) + 1) * 3 + sign(above) + 1);
        const std::int32_t value = chain(coder, symbol, first, second, signs);
        const int seen = std::min(63, magnitude(value)) * unit;
        row.mean += (seen - row.mean) / 16;
        column_ += (seen - column_) / 16;
        row.code = value;
        place_ = place_ + 1 == rows_.size() ? 0 : place_ + 1;
        return value;
    }

private:
    static constexpr int unit = 64;  // of running means
    static constexpr int unary = 15;
    static constexpr std::size_t levels = 12;
    static constexpr std::size_t contexts = levels * 3;
    using Learned = std::array<AdaptiveBit, contexts>;

    struct Row {
        std::int32_t code = 0;  // in the column before, or in this one once it is coded
        int mean = unit;
    };

    static int magnitude(std::int32_t code) { return code < 0 ? -code : code; }
    static int sign(std::int32_t code) { return (code > 0) - (code < 0); }

    static constexpr int largest_mean = 63 * unit;

    /// How large running means are, in steps that widen: a table, for this is asked twice a code.
    static std::size_t level(int mean) {
        static const auto table = [] {
            constexpr std::array<int, levels - 1> bounds{1, 17, 33, 49, 73, 105, 145, 201, 281, 401, 601};
            std::array<std::uint8_t, largest_mean + 1> made{};
            for (std::size_t at = 0; at < made.size(); ++at) {
                for (const int bound : bounds) made[at] = static_cast<std::uint8_t>(made[at] + (static_cast<int>(at) >= bound));
            }
            return made;
        }();
        return table[static_cast<std::size_t>(mean)];
    }

    template <typename Coder>
    std::int32_t chain(Coder& coder, std::int32_t symbol, std::size_t first, std::size_t second, std::size_t signs) {
        if (!coder.bit({nonzero_[0][first], nonzero_[1][second]}, symbol != 0)) return 0;
        const bool negative = coder.bit({sign_[signs], sign_[signs]}, symbol < 0);
        const std::int32_t target = magnitude(symbol);
        std::int32_t size = 1;
        while (size < unary && coder.bit({larger_[0][at(size)][first], larger_[1][at(size)][second]}, target > size)) {
            ++size;
        }
        if (size == unary) size += gamma(coder, target - unary);
        if (size > largest_code) throw std::invalid_argument("A coded number is larger than any code.");
        return negative ? -size : size;
    }

    /// A number from 0 on: how many binary digits `number + 1` has, then the digits below the first.
    template <typename Coder>
    std::int32_t gamma(Coder& coder, std::int32_t number) {
        const auto wanted = static_cast<std::uint32_t>(number) + 1;
        std::size_t digits = 0;
        while (coder.bit({digits_[digits], digits_[digits]}, digits < 31 && wanted >> (digits + 1) != 0)) {
            if (++digits == digits_.size()) throw std::invalid_argument("A coded number is larger than any code.");
        }
        std::uint32_t value = 1;
        for (std::size_t place = digits; place-- > 0;) {
            AdaptiveBit even;
            value = value << 1 | static_cast<std::uint32_t>(coder.bit({even, even}, (wanted >> place & 1) != 0));
        }
        return static_cast<std::int32_t>(value - 1);
    }

    static std::size_t at(std::int32_t size) { return static_cast<std::size_t>(size); }

    std::vector<Row> rows_;
    std::size_t place_ = 0;
    int column_ = unit;
    std::array<Learned, 2> nonzero_{};
    std::array<std::array<Learned, unary>, 2> larger_{};
    std::array<AdaptiveBit, 9> sign_{};
    std::array<AdaptiveBit, 25> digits_{};
};

/// Adds up what codes cost, without writing them.
class BitCounter {
public:
    bool bit(const BitPair& pair, bool outcome) {
        const double probability = pair.probability() / 65536.0;
        bits_ -= std::log2(outcome ? probability : 1 - probability);
        pair.update(outcome);
        return outcome;
    }

    double bits() const { return bits_; }

private:
    double bits_ = 0;
};

}  // namespace whit
