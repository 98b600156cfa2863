// The adaptive probabilities behind the codec's profile `small`, usable with or without a coder.
//
// A code is told by yes-no questions: is it other than 0, is it negative, is its magnitude above 1, above 2, ...
// Each question has its own adaptive probability at each level of the magnitudes coded near it. Everything that
// decides a coded bit is integer arithmetic, so that the same codes give the same bytes on every machine.
//
// Codes are visited column by column, all rows of a column in order, as the optimal-brain quantizer decides them:
//
//     Neighbourhood near(rows, mean);
//     SymbolModel model;
//     for each column:
//         near.begin_column();
//         for each row:
//             const int level = near.level(row);
//             ... model.bits(candidate, level) ...
//             model.update(code, level);
//             near.push(row, code);
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace whit {

/// Largest magnitude that the model can code.
inline constexpr std::int32_t largest_symbol = 1 << 24;

namespace detail {

/// 65536 / (n + 2.5), the step after n observations; it stops at 1/32 for quick and 1/256 for slow adaptation.
struct Steps {
    static constexpr int count = 254;
    std::array<std::uint16_t, count + 1> quick{};
    std::array<std::uint16_t, count + 1> slow{};

    constexpr Steps() {
        for (unsigned n = 0; n <= count; ++n) {
            const unsigned step = 131072u / (2 * n + 5);
            quick[n] = static_cast<std::uint16_t>(step > 2048 ? step : 2048);
            slow[n] = static_cast<std::uint16_t>(step > 256 ? step : 256);
        }
    }
};
inline constexpr Steps steps{};

inline unsigned floor_log2(std::uint32_t value) {
    unsigned log = 0;
    for (unsigned half = 16; half > 0; half /= 2) {
        if (value >> half != 0) {
            value >>= half;
            log += half;
        }
    }
    return log;
}

}  // namespace detail

/// The probability of one yes-no question, the mean of a quick and a slow estimate, in units of 1/65536.
class AdaptiveBit {
public:
    constexpr AdaptiveBit() = default;
    constexpr explicit AdaptiveBit(std::uint16_t probability) : quick_(probability), slow_(probability) {}

    /// Probability of yes, in [32, 65504]: no answer costs more than 11 bits.
    constexpr std::uint32_t probability() const {
        const std::uint32_t mean = (std::uint32_t{quick_} + slow_) / 2;
        return mean < 32 ? 32 : (mean > 65504 ? 65504 : mean);
    }

    void update(bool yes) {
        const std::uint32_t quick = detail::steps.quick[seen_], slow = detail::steps.slow[seen_];
        if (seen_ < detail::Steps::count) ++seen_;
        // Unsigned on both sides, because a negative number's right shift is the compiler's choice in C++17.
        if (yes) {
            quick_ = static_cast<std::uint16_t>(quick_ + (((65535u - quick_) * quick) >> 16));
            slow_ = static_cast<std::uint16_t>(slow_ + (((65535u - slow_) * slow) >> 16));
        } else {
            quick_ = static_cast<std::uint16_t>(quick_ - ((quick_ * quick) >> 16));
            slow_ = static_cast<std::uint16_t>(slow_ - ((slow_ * slow) >> 16));
        }
    }

private:
    std::uint16_t quick_ = 32768;
    std::uint16_t slow_ = 32768;
    std::uint16_t seen_ = 0;
};

/// What stands near the code that comes next: decaying means of the magnitudes of its row and of its columns, the
/// magnitudes to its left and above it, and the signs to its left, which kernels of convolutions share (this saves 5 %
/// on ResNet-20). Column means for each position of a kernel were tried: they cost 0.2 %.
class Neighbourhood {
public:
    static constexpr int levels = 24;

    /// `mean`: see `mean_byte`.
    Neighbourhood(std::size_t rows, std::uint8_t mean)
        : row_means_(rows, from_byte(mean)), left_(rows, 0), signs_(rows, 0), column_mean_(from_byte(mean)) {}

    /// To be called before the first row of every column.
    void begin_column() { above_ = 0; }

    /// The context of the next code of `row`: in [0, levels) half octaves of the magnitude to be expected, plus
    /// `levels` times the signs of the three codes to its left, as a number of three ternary digits.
    int level(std::size_t row) const { return expected_level(row) + levels * static_cast<int>(signs_[row]); }

    /// Takes note of the code that `row` got in this column.
    void push(std::size_t row, std::int32_t symbol) {
        const auto magnitude = static_cast<std::uint32_t>(std::min(std::abs(symbol), 4095));
        row_means_[row] = moved(row_means_[row], magnitude);
        column_mean_ = moved(column_mean_, magnitude);
        left_[row] = magnitude;
        signs_[row] = static_cast<std::uint8_t>(signs_[row] % 9 * 3 + (symbol == 0 ? 0 : (symbol < 0 ? 1 : 2)));
        above_ = magnitude;
    }

    /// The mean magnitude with which a neighbourhood starts, as a byte: `sum` of the magnitudes of `count` codes.
    static std::uint8_t mean_byte(std::uint64_t sum, std::uint64_t count) {
        if (count == 0) return 0;
        const std::uint64_t mean = std::min<std::uint64_t>((sum << unit) / count, 4095u << unit);
        int byte = 0;
        while (byte < 255 && from_byte(static_cast<std::uint8_t>(byte + 1)) <= mean) ++byte;
        return static_cast<std::uint8_t>(byte);
    }

private:
    int expected_level(std::size_t row) const {
        const std::uint32_t expected = 8 * row_means_[row] + 4 * column_mean_ + ((left_[row] + above_) << unit);
        // 14 is the sum of the weights, 3.5 of them for each that a mean over all four would have.
        const std::uint32_t scaled = expected / 14;
        if (scaled < 64) return 0;
        const unsigned log = detail::floor_log2(scaled);
        return std::min(levels - 1, static_cast<int>(2 * (log - 6) + ((scaled >> (log - 1)) & 1)));
    }

    static constexpr unsigned unit = 12;  // a mean of 1 is 1 << 12

    // Eight steps an octave, from 8 / 4096 on; no more than 4095, so that nothing overflows.
    static std::uint32_t from_byte(std::uint8_t byte) {
        const unsigned octave = std::min(byte >> 3, 20);
        return std::min<std::uint32_t>((8u + (byte & 7u)) << octave, 4095u << unit);
    }

    static std::uint32_t moved(std::uint32_t mean, std::uint32_t magnitude) {
        return mean - mean / 16 + (magnitude << (unit - 4));
    }

    std::vector<std::uint32_t> row_means_;
    std::vector<std::uint32_t> left_;
    std::vector<std::uint8_t> signs_;
    std::uint32_t column_mean_;
    std::uint32_t above_ = 0;
};

/// The adaptive model of one matrix of codes.
///
/// A coder has one function, `bool code(bool answer, std::uint32_t probability)`, which writes `answer`, whose
/// probability of being true is given in units of 1/65536, and gives it back; one that reads ignores `answer`.
class SymbolModel {
public:
    SymbolModel() {
        // Those of a two-sided geometric distribution whose mean magnitude is the level's.
        constexpr std::array<std::uint16_t, Neighbourhood::levels> nonzero = {
            1217,  1817,  2412,  3583,  4731,  6959,  9097,  13107, 16775, 23161, 28430, 36349,
            41809, 48554, 52429, 56603, 58782, 61007, 62132, 63263, 63830, 64399, 64683, 64800};
        constexpr std::array<std::uint16_t, Neighbourhood::levels> above = {
            700,   921,   1228,  1842,  2454,  3675,  4888,  7282,  9619,  14066, 18152, 25149,
            30695, 38562, 43691, 49813, 53290, 57063, 59064, 61143, 62211, 63300, 63852, 64408};
        for (std::size_t level = 0; level < questions_.size(); ++level) {
            questions_[level].fill(AdaptiveBit(above[level]));
            questions_[level][0] = AdaptiveBit(nonzero[level]);
        }
    }

    /// Codes `symbol` through `coder`, adapts to it, and gives back what was coded.
    template <typename Coder>
    std::int32_t code(Coder& coder, std::int32_t symbol, int level) {
        auto& questions = questions_[static_cast<std::size_t>(level % Neighbourhood::levels)];
        AdaptiveBit& sign = signs_[static_cast<std::size_t>(level / Neighbourhood::levels)];
        const std::int32_t wanted = std::abs(symbol);
        if (!ask(coder, questions[0], wanted > 0)) return 0;
        const bool negative = ask(coder, sign, symbol < 0);
        std::int32_t magnitude = 1;
        while (magnitude <= last && ask(coder, questions[static_cast<std::size_t>(magnitude)], wanted > magnitude)) {
            ++magnitude;
        }
        if (magnitude > last) magnitude = last + escaped(coder, wanted - last);
        return negative ? -magnitude : magnitude;
    }

    /// Adapts to a symbol without coding it.
    void update(std::int32_t symbol, int level) {
        Silent silent;
        code(silent, symbol, level);
    }

    /// What coding a symbol would cost now, in bits; nothing adapts.
    float bits(std::int32_t symbol, int level) const {
        const auto& questions = questions_[static_cast<std::size_t>(level % Neighbourhood::levels)];
        const std::int32_t magnitude = std::abs(symbol);
        if (magnitude == 0) return cost(false, questions[0]);
        float sum = cost(true, questions[0]);
        sum += cost(symbol < 0, signs_[static_cast<std::size_t>(level / Neighbourhood::levels)]);
        for (std::int32_t k = 1; k <= std::min(magnitude, last); ++k) {
            sum += cost(magnitude > k, questions[static_cast<std::size_t>(k)]);
        }
        if (magnitude <= last) return sum;
        const auto rest = static_cast<std::uint32_t>(magnitude - last);
        const unsigned exponent = detail::floor_log2(rest);
        for (unsigned k = 0; k <= std::min(exponent, most_exponent - 1); ++k) sum += cost(k < exponent, exponents_[k]);
        return sum + static_cast<float>(exponent);
    }

private:
    static constexpr std::int32_t last = 14;  // magnitudes above it are escaped
    static constexpr unsigned most_exponent = 24;

    struct Silent {
        bool code(bool answer, std::uint32_t) { return answer; }
    };

    template <typename Coder>
    static bool ask(Coder& coder, AdaptiveBit& question, bool answer) {
        answer = coder.code(answer, question.probability());
        question.update(answer);
        return answer;
    }

    // Exp-Golomb: an exponent of adaptive bits, then the bits below the leading one as they are.
    template <typename Coder>
    std::int32_t escaped(Coder& coder, std::int32_t rest) {
        const unsigned wanted = rest > 0 ? detail::floor_log2(static_cast<std::uint32_t>(rest)) : 0;
        unsigned exponent = 0;
        while (exponent < most_exponent && ask(coder, exponents_[exponent], exponent < wanted)) ++exponent;
        std::int32_t value = 1;
        for (unsigned k = exponent; k-- > 0;) value = 2 * value + (coder.code((rest >> k) & 1, 32768) ? 1 : 0);
        return value;
    }

    static float cost(bool answer, const AdaptiveBit& question) {
        static const std::vector<float> table = [] {
            std::vector<float> bits(4097);
            for (int i = 1; i <= 4096; ++i) bits[static_cast<std::size_t>(i)] = 12 - std::log2(static_cast<float>(i));
            bits[0] = 13;
            return bits;
        }();
        const std::uint32_t probability = question.probability();
        return table[((answer ? probability : 65536 - probability) + 8) >> 4];
    }

    std::array<std::array<AdaptiveBit, last + 1>, Neighbourhood::levels> questions_;
    std::array<AdaptiveBit, 27> signs_;
    std::array<AdaptiveBit, most_exponent> exponents_;
};

}  // namespace whit
