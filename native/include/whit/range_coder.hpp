// A binary adaptive range coder: answers to yes-no questions as bytes, near the cost their probabilities promise.
//
// Invariants, at the start of every call of `code`:
//   - 2^24 <= range < 2^32, so that both parts of the range are at least 2^8 for probabilities in [1, 65535];
//   - the writer's low is below 2^32 plus a carry that has not yet been added to the bytes kept back: one byte, and
//     the run of 0xff behind it through which a carry would ripple;
//   - the reader's offset into the range is below range, whatever bytes it is given.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "whit/span.hpp"

namespace whit {

/// Writes answers; see `SymbolModel` for what a coder is.
class RangeEncoder {
public:
    bool code(bool answer, std::uint32_t probability) {
        const std::uint32_t yes = (range_ >> 16) * probability;
        if (answer) {
            range_ = yes;
        } else {
            low_ += yes;
            range_ -= yes;
        }
        while (range_ < (1u << 24)) {
            range_ <<= 8;
            shift();
        }
        return answer;
    }

    /// The bytes; zeros at their end are left away, since the reader finds zeros behind its bytes.
    std::vector<std::uint8_t> finish() {
        // Of the values in [low, low + range) the one with the most zero bytes at its end.
        for (int zeros = 24; zeros >= 0; zeros -= 8) {
            const std::uint64_t mask = (std::uint64_t{1} << zeros) - 1;
            const std::uint64_t value = (low_ + mask) & ~mask;
            if (value - low_ < range_) {
                low_ = value;
                break;
            }
        }
        for (int i = 0; i < 5; ++i) shift();
        while (!bytes_.empty() && bytes_.back() == 0) bytes_.pop_back();
        return std::move(bytes_);
    }

private:
    void shift() {
        if (low_ < 0xff000000u || low_ > 0xffffffffu) {
            const auto carry = static_cast<std::uint8_t>(low_ >> 32);
            // The first byte kept back stands before the stream and is always 0.
            if (started_) bytes_.push_back(static_cast<std::uint8_t>(kept_ + carry));
            started_ = true;
            for (; run_ > 0; --run_) bytes_.push_back(static_cast<std::uint8_t>(0xff + carry));
            kept_ = static_cast<std::uint8_t>(low_ >> 24);
        } else {
            ++run_;
        }
        low_ = (low_ & 0x00ffffffu) << 8;
    }

    std::uint64_t low_ = 0;
    std::uint32_t range_ = 0xffffffffu;
    std::uint64_t run_ = 0;
    std::uint8_t kept_ = 0;
    bool started_ = false;
    std::vector<std::uint8_t> bytes_;
};

/// Reads answers; behind the bytes it finds zeros, so it never reads outside, whatever it is given.
class RangeDecoder {
public:
    explicit RangeDecoder(Span<const std::uint8_t> bytes) : next_(bytes.begin()), end_(bytes.end()) {
        for (int i = 0; i < 4; ++i) offset_ = offset_ << 8 | byte();
    }

    bool code(bool, std::uint32_t probability) {
        const std::uint32_t yes = (range_ >> 16) * probability;
        const bool answer = offset_ < yes;
        if (answer) {
            range_ = yes;
        } else {
            offset_ -= yes;
            range_ -= yes;
        }
        while (range_ < (1u << 24)) {
            range_ <<= 8;
            offset_ = offset_ << 8 | byte();
        }
        return answer;
    }

    /// Whether every byte was looked at.
    bool finished() const { return next_ == end_; }

private:
    std::uint32_t byte() { return next_ == end_ ? 0 : *next_++; }

    const std::uint8_t* next_;
    const std::uint8_t* end_;
    std::uint32_t offset_ = 0;
    std::uint32_t range_ = 0xffffffffu;
};

}  // namespace whit
