// Arrays of float32 as fewer bytes, bit for bit: scales, biases and whatever else is not integers.
//
//     byte 0   how many of the lowest bits of the mantissa are zero in every value, 0 to 23; 128 more if zeros are told
//     byte 1   the largest exponent, as stored in a float32
//     ...      range coded answers; for each value:
//              - if zeros are told: whether it is zero, and if so its sign, and nothing else
//              - how far its exponent lies below the largest: more than 0? more than 1? ...
//              - its sign
//              - the bits of its mantissa but for the lowest that are zero, highest first
//
// Zeros, exponents and signs are learned, mantissas cost what they have: numbers that were rounded to a few bits are
// cheap, and so are weights of which most were pruned.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "whit/range_coder.hpp"
#include "whit/span.hpp"
#include "whit/two_speed_bit.hpp"

namespace whit {

/// No byte that was coded stands for more than this many values: no answer is surer than 65504 in 65536.
inline constexpr std::size_t most_floats_from_one = 1 << 14;

namespace detail {

inline constexpr unsigned mantissa_bits = 23;
inline constexpr std::uint8_t zeros_are_told = 128;
inline constexpr std::size_t few_zeros = 64;  // one in so many does not pay for the question that all others are asked

/// The adaptive model of the bits of float32 values that share their largest exponent and their lowest zero bits.
class FloatModel {
public:
    FloatModel(unsigned lowest, std::uint32_t largest, bool told) : lowest_(lowest), largest_(largest), told_(told) {}

    /// Codes the bits of one value through `coder`, adapts to it, and gives back what was coded.
    template <typename Coder>
    std::uint32_t code(Coder& coder, std::uint32_t bits) {
        if (told_ && ask(coder, zero_, bits << 1 == 0)) return ask(coder, zero_sign_, bits >> 31 != 0) ? 1u << 31 : 0;
        const std::uint32_t wanted = largest_ - (bits >> mantissa_bits & 255);
        std::uint32_t below = 0;
        while (below < largest_ && ask(coder, exponents_[std::min(below, last)], wanted > below)) ++below;
        const std::uint32_t sign = ask(coder, sign_, bits >> 31 != 0) ? 1 : 0;
        std::uint32_t mantissa = 0;
        for (unsigned k = mantissa_bits; k-- > lowest_;) {
            mantissa = 2 * mantissa + (coder.code((bits >> k & 1) != 0, 32768) ? 1 : 0);
        }
        return sign << 31 | (largest_ - below) << mantissa_bits | mantissa << lowest_;
    }

private:
    static constexpr std::uint32_t last = 31;

    template <typename Coder>
    static bool ask(Coder& coder, TwoSpeedBit& question, bool answer) {
        answer = coder.code(answer, question.probability());
        question.update(answer);
        return answer;
    }

    unsigned lowest_;
    std::uint32_t largest_;
    bool told_;
    std::array<TwoSpeedBit, last + 1> exponents_{};
    TwoSpeedBit sign_{}, zero_{}, zero_sign_{};
};

inline std::uint32_t bits_of(float value) {
    std::uint32_t bits = 0;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

}  // namespace detail

/// The bytes of float32 values; NaN, infinities and the sign of zero included.
inline std::vector<std::uint8_t> encode_floats(Span<const float> values) {
    std::uint32_t any = 1u << detail::mantissa_bits, largest = 0;
    std::size_t zeros = 0;
    for (const float value : values) {
        any |= detail::bits_of(value);
        if (value == 0) ++zeros;
        largest = std::max(largest, detail::bits_of(value) >> detail::mantissa_bits & 255);
    }
    std::uint8_t lowest = 0;
    while ((any >> lowest & 1) == 0) ++lowest;
    const bool told = zeros > values.size() / detail::few_zeros && zeros < values.size();
    RangeEncoder coder;
    detail::FloatModel model(lowest, largest, told);
    for (const float value : values) model.code(coder, detail::bits_of(value));
    const int first = lowest | (told ? detail::zeros_are_told : 0);
    std::vector<std::uint8_t> bytes = {static_cast<std::uint8_t>(first), static_cast<std::uint8_t>(largest)};
    const std::vector<std::uint8_t> coded = coder.finish();
    bytes.insert(bytes.end(), coded.begin(), coded.end());
    return bytes;
}

/// The `count` values that `encode_floats` was given.
///
/// Throws std::runtime_error where the bytes cannot hold so many, go on behind them, or begin with what no encoder
/// writes.
inline std::vector<float> decode_floats(Span<const std::uint8_t> bytes, std::size_t count) {
    if (bytes.size() < 2 || count / most_floats_from_one > bytes.size()) {
        throw std::runtime_error("The coded numbers are too few bytes for what they declare.");
    }
    const bool told = bytes[0] >= detail::zeros_are_told;
    const unsigned lowest = bytes[0] - (told ? detail::zeros_are_told : 0u);
    if (lowest > detail::mantissa_bits) throw std::runtime_error("The coded numbers declare no mantissa.");
    RangeDecoder coder({bytes.data() + 2, bytes.size() - 2});
    detail::FloatModel model(lowest, bytes[1], told);
    std::vector<float> values(count);
    for (float& value : values) {
        const std::uint32_t bits = model.code(coder, 0);
        std::memcpy(&value, &bits, sizeof value);
    }
    if (!coder.finished()) throw std::runtime_error("The coded numbers go on behind what they declare.");
    return values;
}

}  // namespace whit
