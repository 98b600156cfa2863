// Text and other bytes that repeat themselves, such as the header and the graph of a file, as few bytes.
//
// Seven experts guess each bit: six by the last 0, 1, 2, 3, 4 and 6 bytes, one by what followed the last time that the
// last five bytes stood somewhere. Their guesses are mixed in the logistic domain by weights that learn from each
// error. Integer arithmetic only, so that the same bytes are coded the same way on every machine.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <vector>

#include "whit/range_coder.hpp"
#include "whit/span.hpp"

namespace whit {

/// No byte that was coded stands for more than this many.
inline constexpr std::size_t most_bytes_from_one = 2048;

namespace detail {

/// The logistic function and its inverse, `log(p / (1 - p))` in units of 1/256, for probabilities in units of 1/65536.
class Logistic {
public:
    static constexpr std::int32_t most = 3071;

    Logistic() {
        std::int32_t x = -most;
        for (std::size_t p = 0; p < inverse_.size(); ++p) {
            while (x < most && probability(x) < static_cast<std::int32_t>(16 * p)) ++x;
            inverse_[p] = static_cast<std::int16_t>(x);
        }
    }

    /// Straight lines between the values at every 128 units.
    static std::int32_t probability(std::int32_t x) {
        constexpr std::array<std::int32_t, 25> above = {
            32768, 40793, 47911, 53581, 57724, 60565, 62428, 63615, 64357, 64816, 65097, 65269, 65374,
            65438, 65476, 65500, 65514, 65523, 65528, 65531, 65533, 65534, 65535, 65535, 65536};
        const std::int32_t far = std::min(x < 0 ? -x : x, most);
        const auto knot = static_cast<std::size_t>(far / 128);
        const std::int32_t p = above[knot] + (above[knot + 1] - above[knot]) * (far % 128) / 128;
        return x < 0 ? 65536 - p : p;
    }

    std::int32_t inverse(std::uint32_t p) const { return inverse_[p >> 4]; }

private:
    std::array<std::int16_t, 4096> inverse_{};
};

/// What one expert has seen in one context: a probability that moves by `1 / (n + 1.4)` after `n` bits.
struct Guess {
    std::uint16_t probability = 32768;
    std::uint16_t seen = 0;

    void update(bool bit, std::uint16_t limit) {
        const std::uint32_t step = 655360u / (10u * seen + 14u);
        if (seen < limit) ++seen;
        const std::uint32_t move = ((bit ? 65535u - probability : probability) * step) >> 16;
        probability = static_cast<std::uint16_t>(bit ? probability + move : probability - move);
    }
};

}  // namespace detail

/// The adaptive model of bytes; a coder is what `SymbolModel` says.
class ByteModel {
public:
    ByteModel() : guesses_(orders.size() << log_slots), places_(std::size_t{1} << 16), weights_(3 * 256) {
        for (auto& weights : weights_) weights.fill(20000);
    }

    /// Codes one byte through `coder`, adapts to it, and gives back what was coded.
    template <typename Coder>
    std::uint8_t code(Coder& coder, std::uint8_t byte) {
        std::uint32_t partial = 1;  // the byte's bits so far, below a leading one
        for (int k = 7; k >= 0; --k) {
            const bool bit = coder.code(((byte >> k) & 1) != 0, predict(partial, k));
            update(bit);
            partial = 2 * partial + (bit ? 1 : 0);
        }
        append(static_cast<std::uint8_t>(partial));
        return static_cast<std::uint8_t>(partial);
    }

private:
    static constexpr std::array<std::size_t, 6> orders = {0, 1, 2, 3, 4, 6};
    static constexpr std::size_t experts = orders.size() + 2;  // and the match, and a constant
    static constexpr unsigned log_slots = 18;

    std::uint32_t predict(std::uint32_t partial, int bits_left) {
        for (std::size_t i = 0; i < orders.size(); ++i) {
            const std::uint32_t slot = ((contexts_[i] + partial * 0x9e3779b1u) * 0x2c1b3c6du) >> (32 - log_slots);
            expert_[i] = &guesses_[(i << log_slots) + slot];
            stretched_[i] = expert_[i]->seen == 0 ? 0 : logistic().inverse(expert_[i]->probability);
        }
        const std::uint32_t expected = match_ == 0 ? 0 : bytes_[match_] | 256u;
        matching_ = expected >> (bits_left + 1) == partial;
        stretched_[orders.size()] = 0;
        if (matching_) {
            expected_ = ((expected >> bits_left) & 1) != 0;
            const std::int32_t sure = logistic().inverse(match_guesses_[std::min<std::size_t>(length_, 31)].probability);
            stretched_[orders.size()] = expected_ ? sure : -sure;
        }
        stretched_[experts - 1] = 256;
        chosen_ = &weights_[(match_ == 0 ? 0 : (length_ < 16 ? 256 : 512)) + partial];
        std::int64_t sum = 0;
        for (std::size_t i = 0; i < experts; ++i) sum += std::int64_t{(*chosen_)[i]} * stretched_[i];
        constexpr std::int64_t most = detail::Logistic::most;
        mixed_ = detail::Logistic::probability(static_cast<std::int32_t>(std::clamp(sum / 65536, -most, most)));
        mixed_ = std::clamp(mixed_, 32, 65504);
        return static_cast<std::uint32_t>(mixed_);
    }

    void update(bool bit) {
        const std::int32_t error = (bit ? 65535 : 0) - mixed_;
        for (std::size_t i = 0; i < experts; ++i) {
            const std::int32_t moved = (*chosen_)[i] + stretched_[i] * error / 5461;
            (*chosen_)[i] = std::clamp(moved, -(1 << 22), 1 << 22);
        }
        for (std::size_t i = 0; i < orders.size(); ++i) expert_[i]->update(bit, 30);
        if (matching_) {
            match_guesses_[std::min<std::size_t>(length_, 31)].update(bit == expected_, 255);
            if (bit != expected_) match_ = 0;
        }
    }

    void append(std::uint8_t byte) {
        bytes_.push_back(byte);
        for (std::size_t i = 0; i < orders.size(); ++i) contexts_[i] = hashed(orders[i]);
        if (match_ != 0) {
            ++match_;
            ++length_;
        }
        std::uint32_t& last = places_[hashed(5) >> 16];
        if (match_ == 0) {
            match_ = last;
            for (length_ = 0; length_ < std::min<std::size_t>(match_, 31); ++length_) {
                if (bytes_[match_ - 1 - length_] != bytes_[bytes_.size() - 1 - length_]) break;
            }
            if (length_ < 5) match_ = 0;
        }
        last = static_cast<std::uint32_t>(bytes_.size());
    }

    /// The last bytes as one number; there are zeros before the first.
    std::uint32_t hashed(std::size_t count) const {
        std::uint32_t hash = static_cast<std::uint32_t>(count);
        for (std::size_t k = 1; k <= count; ++k) {
            hash = (hash + (k <= bytes_.size() ? bytes_[bytes_.size() - k] : 0u) + 1) * 0x2545f491u;
            hash ^= hash >> 15;
        }
        return hash;
    }

    static const detail::Logistic& logistic() {
        static const detail::Logistic one;
        return one;
    }

    std::vector<std::uint8_t> bytes_;
    std::vector<detail::Guess> guesses_;
    std::array<detail::Guess, 32> match_guesses_{};
    std::vector<std::uint32_t> places_;
    std::vector<std::array<std::int32_t, experts>> weights_;
    std::array<std::uint32_t, orders.size()> contexts_{};
    std::array<detail::Guess*, orders.size()> expert_{};
    std::array<std::int32_t, experts> stretched_{};
    std::array<std::int32_t, experts>* chosen_ = nullptr;
    std::int32_t mixed_ = 0;
    std::size_t match_ = 0;  // where the byte that is expected next stands; 0 for none
    std::size_t length_ = 0;
    bool matching_ = false;
    bool expected_ = false;
};

/// Bytes as fewer bytes; `decode_bytes` is the exact inverse.
inline std::vector<std::uint8_t> encode_bytes(Span<const std::uint8_t> bytes) {
    RangeEncoder coder;
    ByteModel model;
    for (const std::uint8_t byte : bytes) model.code(coder, byte);
    return coder.finish();
}

/// The `size` bytes that `encode_bytes` was given.
///
/// Throws std::runtime_error where the coded bytes cannot hold so many, or go on behind them.
inline std::vector<std::uint8_t> decode_bytes(Span<const std::uint8_t> coded, std::size_t size) {
    if (size / most_bytes_from_one > coded.size()) {
        throw std::runtime_error("The coded bytes are too few for what they declare.");
    }
    RangeDecoder coder(coded);
    ByteModel model;
    std::vector<std::uint8_t> bytes(size);
    for (std::uint8_t& byte : bytes) byte = model.code(coder, 0);
    if (!coder.finished()) throw std::runtime_error("The coded bytes go on behind what they declare.");
    return bytes;
}

}  // namespace whit
