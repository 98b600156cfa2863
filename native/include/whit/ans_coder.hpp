// Symbols of given probabilities as bytes and back, near the cost that the probabilities promise: range asymmetric
// numeral systems (Duda, "Asymmetric numeral systems", 2013), with one state of 64 bits and words of 32.
//
//     1 to 8 bytes   the state, as many as bring what is left to a multiple of 4 (5 to 8 if there are words)
//     4 bytes each   words, as the reader asks for them
//
// The reader goes forward, so the writer goes backward. It begins with 2^15, not with 2^31, which saves two bytes; less
// would make zeros at the end free, and bytes have to bound how many codes they tell. The reader knows that it was right
// by ending at 2^15, with no word left.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "whit/span.hpp"
#include "whit/symbol_model.hpp"

namespace whit {

namespace detail {

/// A state below this takes in a word, if there is one.
inline constexpr std::uint64_t lowest_ans_state = std::uint64_t{1} << 31;

}  // namespace detail

/// Notes symbols, and writes them once all are known; see `SymbolModel` for what a coder is.
class AnsEncoder {
public:
    /// `symbols`: how many are to be expected, for speed alone.
    explicit AnsEncoder(std::size_t symbols = 0) { parts_.reserve(symbols); }

    std::size_t symbol(const Shares& shares, std::size_t wanted) {
        note(shares.below[wanted], shares.below[wanted + 1]);
        return wanted;
    }

    bool answer(std::uint32_t probability, bool wanted) {
        note(wanted ? 0 : probability, wanted ? probability : certain);
        return wanted;
    }

    std::vector<std::uint8_t> finish() const {
        std::vector<std::uint32_t> words;
        std::uint64_t state = certain;
        for (auto part = parts_.rbegin(); part != parts_.rend(); ++part) {
            // Shifted so, a share leaves room for one step: after it the state is still below 2^63.
            if (state >= std::uint64_t{part->share} << (63 - probability_bits)) {
                words.push_back(static_cast<std::uint32_t>(state));
                state >>= 32;
            }
            state = ((state / part->share) << probability_bits) + state % part->share + part->below;
        }
        std::vector<std::uint8_t> bytes;
        for (; state != 0 || (!words.empty() && bytes.size() < 5); state >>= 8) {
            bytes.push_back(static_cast<std::uint8_t>(state));
        }
        for (auto word = words.rbegin(); word != words.rend(); ++word) {
            for (int shift = 0; shift < 32; shift += 8) bytes.push_back(static_cast<std::uint8_t>(*word >> shift));
        }
        return bytes;
    }

private:
    struct Part {
        std::uint16_t below;
        std::uint16_t share;
    };

    void note(std::uint32_t below, std::uint32_t end) {
        parts_.push_back({static_cast<std::uint16_t>(below), static_cast<std::uint16_t>(end - below)});
    }

    std::vector<Part> parts_;
};

/// Reads symbols; whatever bytes it is given, it never reads outside them.
class AnsDecoder {
public:
    explicit AnsDecoder(Span<const std::uint8_t> bytes) : next_(bytes.begin()), end_(bytes.end()) {
        const std::size_t size = bytes.size() <= 8 ? bytes.size() : 5 + (bytes.size() - 5) % 4;
        for (std::size_t i = 0; i < size; ++i) state_ |= std::uint64_t{*next_++} << (8 * i);
    }

    std::size_t symbol(const Shares& shares, std::size_t) {
        const auto slot = static_cast<std::uint16_t>(state_ % certain);
        const std::size_t found = detail::last_not_above(shares.below.data(), slot);
        take(slot, shares.below[found], shares.below[found + 1]);
        return found;
    }

    bool answer(std::uint32_t probability, bool) {
        const auto slot = static_cast<std::uint32_t>(state_ % certain);
        const bool yes = slot < probability;
        take(slot, yes ? 0 : probability, yes ? probability : certain);
        return yes;
    }

    /// Whether the symbols that were read are all that was written.
    bool finished() const { return state_ == certain && next_ == end_; }

private:
    void take(std::uint32_t slot, std::uint32_t below, std::uint32_t end) {
        state_ = (state_ >> probability_bits) * (end - below) + (slot - below);
        if (state_ < detail::lowest_ans_state && next_ != end_) {
            // What stands behind the state is a multiple of 4 bytes.
            std::uint32_t word = 0;
            for (int shift = 0; shift < 32; shift += 8) word |= std::uint32_t{*next_++} << shift;
            state_ = state_ << 32 | word;
        }
    }

    const std::uint8_t* next_;
    const std::uint8_t* end_;
    std::uint64_t state_ = 0;
};

}  // namespace whit
