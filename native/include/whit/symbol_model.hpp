// The adaptive probabilities behind the codec's profile `small`, usable with or without a coder.
//
// A code is told by its magnitude, one of 16 symbols of which the last stands for all that is larger, then its sign.
// Each is told by the mean of two adaptive distributions, chosen by two views of what stands near. Everything that
// decides a coded bit is integer arithmetic, so that the same codes give the same bytes on every machine.
//
// Codes are visited column by column, all rows of a column in order, as the optimal-brain quantizer decides them:
//
//     Neighbourhood near(rows, mean, layout);
//     SymbolModel model(layout);
//     for each column:
//         near.begin_column();
//         for each row:
//             const Context context = near.context(row);
//             ... model.bits(candidate, context) ...
//             model.update(code, context);
//             near.push(row, code);
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "whit/lanes.hpp"
#include "whit/neighbourhood.hpp"

namespace whit {

/// Largest magnitude that the model can code.
inline constexpr std::int32_t largest_symbol = 1 << 24;

/// Probabilities are in units of 1 / certain.
inline constexpr unsigned probability_bits = 15;
inline constexpr std::uint32_t certain = 1u << probability_bits;

namespace detail {

/// The step after n observations, 1 / (n + 4) in units of 1/65536 and even; it stops at 1 / 120.
struct Steps {
    static constexpr std::size_t count = 117;
    std::array<std::uint16_t, count> step{};
    std::array<std::uint16_t, count> offset{};

    // A movement `away * step / 65536` is taken of `away + 32768`, so that nothing is negative, and rounded to nearest,
    // which the other summand does: at the last step it is 60, and a distribution would stop so far below its target.
    constexpr Steps() {
        for (unsigned n = 0; n < count; ++n) {
            const unsigned exact = 65536u / (n + 4) / 2 * 2;
            step[n] = static_cast<std::uint16_t>(exact);
            offset[n] = static_cast<std::uint16_t>(32768u + 32768u / exact);
        }
    }

    // Without a branch, which would be mispredicted while some distributions have seen enough and others not.
    std::uint8_t after(std::uint8_t n) const { return static_cast<std::uint8_t>(n + (n + 1u < count ? 1 : 0)); }
};
inline constexpr Steps steps{};

/// The two-sided geometric distributions of mean magnitudes in half octaves from 1/64 on, of 65536: not to be zero, and
/// not to be the least magnitude left.
struct Geometric {
    static constexpr std::array<std::uint16_t, 24> nonzero = {
        1217,  1817,  2412,  3583,  4731,  6959,  9097,  13107, 16775, 23161, 28430, 36349,
        41809, 48554, 52429, 56603, 58782, 61007, 62132, 63263, 63830, 64399, 64683, 64800};
    static constexpr std::array<std::uint16_t, 24> more = {
        700,   921,   1228,  1842,  2454,  3675,  4888,  7282,  9619,  14066, 18152, 25149,
        30695, 38562, 43691, 49813, 53290, 57063, 59064, 61143, 62211, 63300, 63852, 64408};
};

/// No probability falls below this: each target leaves so much to every symbol, and movements towards it keep it. 16 of
/// them are above the last rounding, 60, so that what moves is never beyond 16 bits; 8 instead cost 0.2 %.
inline constexpr unsigned least_share = 4;

/// `targets[s]`: what a distribution moves towards when it sees s.
inline constexpr std::array<Lanes, Lanes::count> make_targets() {
    std::array<Lanes, Lanes::count> targets{};
    for (std::size_t seen = 0; seen < Lanes::count; ++seen) {
        for (std::size_t s = 0; s < Lanes::count; ++s) {
            targets[seen].at[s] =
                static_cast<std::uint16_t>(least_share * s + (s > seen ? certain - least_share * Lanes::count : 0));
        }
    }
    return targets;
}
inline constexpr std::array<Lanes, Lanes::count> targets = make_targets();

}  // namespace detail

/// What a coder is given: `below[s]` is the probability of all symbols before s, `below[16]` that of all.
struct Shares {
    alignas(detail::Lanes) std::array<std::uint16_t, detail::Lanes::count + 1> below;

    Shares(const detail::Lanes& a, const detail::Lanes& b) {
        detail::mean(a, b, below.data());
        below.back() = certain;
    }
};

/// Adaptive distributions of 16 symbols. What they have seen stands apart: so each is 32 bytes, which is 6 % faster.
template <std::size_t Count>
class Distributions {
public:
    /// Symbol 0 is followed by others with probability `nonzero`, each of these with probability `more` (of 65536).
    void start(std::size_t place, std::uint32_t nonzero, std::uint32_t more) {
        constexpr auto symbols = static_cast<unsigned>(detail::Lanes::count);
        std::uint32_t rest = (certain - detail::least_share * symbols) * nonzero >> 16;
        below_[place].at[0] = 0;
        for (unsigned s = 1; s < symbols; ++s, rest = rest * more >> 16) {
            below_[place].at[s] = static_cast<std::uint16_t>(certain - rest - detail::least_share * (symbols - s));
        }
    }

    const detail::Lanes& operator[](std::size_t place) const { return below_[place]; }

    void update(std::size_t place, std::size_t symbol) {
        std::uint8_t& seen = seen_[place];
        detail::move(below_[place], detail::targets[symbol], detail::steps.step[seen], detail::steps.offset[seen]);
        seen = detail::steps.after(seen);
    }

private:
    std::array<detail::Lanes, Count> below_;
    std::array<std::uint8_t, Count> seen_{};
};

/// The adaptive probability of one yes-no question.
class AdaptiveBit {
public:
    std::uint32_t probability() const { return yes_; }

    void update(bool yes) {
        const std::uint32_t step = detail::steps.step[seen_], offset = detail::steps.offset[seen_];
        const std::uint32_t target = yes ? certain - 128 : 128;
        yes_ = static_cast<std::uint16_t>(yes_ + ((target - yes_ + offset) * step >> 16) - step / 2);
        seen_ = detail::steps.after(seen_);
    }

private:
    std::uint16_t yes_ = certain / 2;
    std::uint8_t seen_ = 0;
};

/// The adaptive model of one matrix of codes.
///
/// A coder has two functions, which write what is wanted and give it back; one that reads ignores what is wanted:
/// `std::size_t symbol(const Shares&, std::size_t wanted)` and `bool answer(std::uint32_t probability, bool wanted)`.
class SymbolModel {
public:
    explicit SymbolModel(Layout layout) {
        constexpr std::size_t octaves = Neighbourhood::octaves;
        for (std::size_t level = 0; level < Neighbourhood::levels; ++level) start(levels_, level, level / 2);
        for (std::size_t local = 0; local < Neighbourhood::locals; ++local) {
            if (layout == Layout::kernels) {
                start(locals_, local, local / 9 % octaves * 2 + 1);
            } else if (local < octaves * octaves) {
                start(locals_, local, local / octaves + local % octaves + 1);
            }
        }
    }

    /// Codes `symbol` through `coder`, adapts to it, and gives back what was coded.
    template <typename Coder>
    std::int32_t code(Coder& coder, std::int32_t symbol, const Context& context) {
        const std::int32_t wanted = std::abs(symbol);
        const Shares shares(levels_[context.level], locals_[context.local]);
        const std::size_t found = coder.symbol(shares, static_cast<std::size_t>(std::min(wanted, last)));
        levels_.update(context.level, found);
        locals_.update(context.local, found);
        if (found == 0) return 0;
        const bool negative = coder.answer(negative_probability(context), symbol < 0);
        recents_[context.recent].update(negative != context.recent_flipped);
        kernels_[context.kernel].update(negative != context.kernel_flipped);
        auto magnitude = static_cast<std::int32_t>(found);
        if (magnitude == last) magnitude = last - 1 + escaped(coder, wanted - last + 1);
        return negative ? -magnitude : magnitude;
    }

    /// Adapts to a symbol without coding it.
    void update(std::int32_t symbol, const Context& context) {
        Silent silent;
        code(silent, symbol, context);
    }

    /// What coding a symbol would cost now, in bits; nothing adapts.
    float bits(std::int32_t symbol, const Context& context) const {
        const detail::Lanes &level = levels_[context.level], &local = locals_[context.local];
        const std::int32_t magnitude = std::abs(symbol);
        const auto s = static_cast<std::size_t>(std::min(magnitude, last));
        const std::uint32_t begin = (level.at[s] + local.at[s] + 1u) / 2;
        const std::uint32_t end = magnitude < last ? (level.at[s + 1] + local.at[s + 1] + 1u) / 2 : certain;
        if (magnitude == 0) return cost(end - begin);
        const std::uint32_t negative = negative_probability(context);
        const float sum = cost(end - begin) + cost(symbol < 0 ? negative : certain - negative);
        return magnitude < last ? sum : sum + escaped_bits(static_cast<std::uint32_t>(magnitude - last + 1));
    }

private:
    static constexpr std::int32_t last = 15;  // this magnitude and all above it are escaped
    static constexpr unsigned most_exponent = 24;

    struct Silent {
        std::size_t symbol(const Shares&, std::size_t wanted) { return wanted; }
        bool answer(std::uint32_t, bool wanted) { return wanted; }
    };

    /// Starts with the two-sided geometric distribution of a mean magnitude, which is in half octaves from 1/64 on.
    template <std::size_t Count>
    static void start(Distributions<Count>& distributions, std::size_t place, std::size_t half_octave) {
        distributions.start(place, detail::Geometric::nonzero[half_octave], detail::Geometric::more[half_octave]);
    }

    std::uint32_t negative_probability(const Context& context) const {
        const std::uint32_t recent = recents_[context.recent].probability();
        const std::uint32_t kernel = kernels_[context.kernel].probability();
        return ((context.recent_flipped ? certain - recent : recent) +
                (context.kernel_flipped ? certain - kernel : kernel)) / 2;
    }

    // Exp-Golomb: an exponent of adaptive bits, then the bits below the leading one as they are.
    template <typename Coder>
    std::int32_t escaped(Coder& coder, std::int32_t rest) {
        const unsigned wanted = rest > 0 ? detail::floor_log2(static_cast<std::uint32_t>(rest)) : 0;
        unsigned exponent = 0;
        for (bool more = true; exponent < most_exponent; ++exponent) {
            more = coder.answer(exponents_[exponent].probability(), exponent < wanted);
            exponents_[exponent].update(more);
            if (!more) break;
        }
        std::int32_t value = 1;
        for (unsigned k = exponent; k-- > 0;) {
            value = 2 * value + (coder.answer(certain / 2, ((rest >> k) & 1) != 0) ? 1 : 0);
        }
        return value;
    }

    float escaped_bits(std::uint32_t rest) const {
        const unsigned exponent = detail::floor_log2(rest);
        auto sum = static_cast<float>(exponent);
        for (unsigned k = 0; k <= std::min(exponent, most_exponent - 1); ++k) {
            const std::uint32_t more = exponents_[k].probability();
            sum += cost(k < exponent ? more : certain - more);
        }
        return sum;
    }

    static float cost(std::uint32_t probability) {
        static const std::vector<float> table = [] {
            std::vector<float> bits(certain / 8 + 1);
            for (std::size_t i = 0; i < bits.size(); ++i) {
                bits[i] = 12 - std::log2(std::max(static_cast<float>(i), 0.5F));
            }
            return bits;
        }();
        return table[(probability + 4) / 8];
    }

    Distributions<Neighbourhood::levels> levels_;
    Distributions<Neighbourhood::locals> locals_;
    std::array<AdaptiveBit, Neighbourhood::recents> recents_;
    std::array<AdaptiveBit, Neighbourhood::kernels> kernels_;
    std::array<AdaptiveBit, most_exponent> exponents_;
};

}  // namespace whit
