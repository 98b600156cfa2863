// The adaptive probability of one yes-no question, for the range coder of floats and bytes.
#pragma once

#include <array>
#include <cstdint>

namespace whit {

namespace detail {

/// 65536 / (n + 2.5), the step after n observations; it stops at 1/32 for quick and 1/256 for slow adaptation.
struct TwoSpeeds {
    static constexpr int count = 254;
    std::array<std::uint16_t, count + 1> quick{};
    std::array<std::uint16_t, count + 1> slow{};

    constexpr TwoSpeeds() {
        for (unsigned n = 0; n <= count; ++n) {
            const unsigned step = 131072u / (2 * n + 5);
            quick[n] = static_cast<std::uint16_t>(step > 2048 ? step : 2048);
            slow[n] = static_cast<std::uint16_t>(step > 256 ? step : 256);
        }
    }
};
inline constexpr TwoSpeeds two_speeds{};

}  // namespace detail

/// The probability of one yes-no question, the mean of a quick and a slow estimate, in units of 1/65536.
class TwoSpeedBit {
public:
    constexpr TwoSpeedBit() = default;
    constexpr explicit TwoSpeedBit(std::uint16_t probability) : quick_(probability), slow_(probability) {}

    /// Probability of yes, in [32, 65504]: no answer costs more than 11 bits.
    constexpr std::uint32_t probability() const {
        const std::uint32_t mean = (std::uint32_t{quick_} + slow_) / 2;
        return mean < 32 ? 32 : (mean > 65504 ? 65504 : mean);
    }

    void update(bool yes) {
        const std::uint32_t quick = detail::two_speeds.quick[seen_], slow = detail::two_speeds.slow[seen_];
        if (seen_ < detail::TwoSpeeds::count) ++seen_;
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

}  // namespace whit
