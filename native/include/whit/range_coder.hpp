// A binary range coder (Martin 1979; the carry is held back as in Schindler's and Pavlov's coders).
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "whit/span.hpp"

namespace whit {

/// Writes decisions of given probability in as many bits as they carry.
///
/// Invariants: `range >= 2^24` between decisions; the code lies in `[low, low + range)`; bytes that a carry may still
/// change wait as one byte and a run of 255s.
class RangeEncoder {
public:
    /// `probability` of `true` in 1/65536, from 1 to 65535.
    void encode(bool outcome, std::uint32_t probability) {
        const std::uint32_t bound = (range_ >> 16) * probability;
        if (outcome) {
            range_ = bound;
        } else {
            low_ += bound;
            range_ -= bound;
        }
        while (range_ < (1u << 24)) {
            range_ <<= 8;
            shift();
        }
    }

    /// The bytes, after the last decision.
    std::vector<std::uint8_t> finish() {
        for (int i = 0; i < 5; ++i) shift();
        return std::move(bytes_);
    }

private:
    void shift() {
        if (low_ < 0xFF000000u || low_ > 0xFFFFFFFFu) {
            const auto carry = static_cast<std::uint8_t>(low_ >> 32);
            // The first byte is the place before the code, always 0: it is not written.
            if (started_) bytes_.push_back(static_cast<std::uint8_t>(waiting_ + carry));
            for (; run_ > 0; --run_) bytes_.push_back(static_cast<std::uint8_t>(0xFF + carry));
            waiting_ = static_cast<std::uint8_t>(low_ >> 24);
            started_ = true;
        } else {
            ++run_;
        }
        low_ = (low_ & 0x00FFFFFFu) << 8;
    }

    std::uint64_t low_ = 0;
    std::uint32_t range_ = 0xFFFFFFFFu;
    std::uint8_t waiting_ = 0;
    std::size_t run_ = 0;
    bool started_ = false;
    std::vector<std::uint8_t> bytes_;
};

/// Reads what `RangeEncoder` wrote, given the same probabilities; never reads outside its bytes.
class RangeDecoder {
public:
    explicit RangeDecoder(Span<const std::uint8_t> bytes) : bytes_(bytes) {
        for (int i = 0; i < 4; ++i) code_ = code_ << 8 | next();
    }

    bool decode(std::uint32_t probability) {
        const std::uint32_t bound = (range_ >> 16) * probability;
        const bool outcome = code_ < bound;
        if (outcome) {
            range_ = bound;
        } else {
            code_ -= bound;
            range_ -= bound;
        }
        while (range_ < (1u << 24)) {
            range_ <<= 8;
            code_ = code_ << 8 | next();
        }
        return outcome;
    }

    /// Called after the last decision: every byte must have been read.
    void finish() const {
        if (place_ != bytes_.size()) {
            throw std::invalid_argument("The coded bytes go on after the last code: " + std::to_string(place_) + " of " +
                                        std::to_string(bytes_.size()) + " were needed.");
        }
    }

private:
    std::uint32_t next() {
        if (place_ == bytes_.size()) {
            throw std::invalid_argument("The coded bytes end before the last code: " + std::to_string(place_) +
                                        " bytes were not enough.");
        }
        return bytes_[place_++];
    }

    Span<const std::uint8_t> bytes_;
    std::size_t place_ = 0;
    std::uint32_t range_ = 0xFFFFFFFFu;
    std::uint32_t code_ = 0;
};

}  // namespace whit
