// The probability of a yes-or-no decision, learned from the decisions before it.
#pragma once

#include <cstdint>

namespace whit {

/// How likely `true` is, in units of 1/65536, as seen by a quick and by a slow learner.
///
/// The two move towards each outcome by 1/16 and 1/128 of the way. Integers only, so that every machine learns the
/// same. Invariant: 15 <= fast <= 65521 and 127 <= slow <= 65409, so no outcome is ever impossible.
struct AdaptiveBit {
    std::uint16_t fast = 1 << 15;
    std::uint16_t slow = 1 << 15;

    void update(bool outcome) {
        if (outcome) {
            fast = static_cast<std::uint16_t>(fast + ((65536 - fast) >> 4));
            slow = static_cast<std::uint16_t>(slow + ((65536 - slow) >> 7));
        } else {
            fast = static_cast<std::uint16_t>(fast - (fast >> 4));
            slow = static_cast<std::uint16_t>(slow - (slow >> 7));
        }
    }
};

/// A decision seen in two contexts at once: the mean of what both have learned.
struct BitPair {
    AdaptiveBit& first;
    AdaptiveBit& second;

    /// Probability of `true` in 1/65536, from 71 to 65465.
    std::uint32_t probability() const {
        return (std::uint32_t{first.fast} + first.slow + second.fast + second.slow) >> 2;
    }

    void update(bool outcome) const {
        first.update(outcome);
        second.update(outcome);
    }
};

}  // namespace whit
