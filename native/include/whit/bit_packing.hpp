// Codes of a few bits, laid side by side without gaps.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "whit/span.hpp"

namespace whit {

namespace detail {

inline void check_bits(int bits, std::int32_t low) {
    if (bits < 1 || bits > 16) {
        throw std::invalid_argument("bits is " + std::to_string(bits) + ", but a packed code has 1 to 16 bits.");
    }
    if (low > std::numeric_limits<std::int32_t>::max() - ((1 << bits) - 1)) {
        throw std::invalid_argument("low is " + std::to_string(low) + ", so that codes of " + std::to_string(bits) +
                                    " bits above it would not fit int32; use a lower low.");
    }
}

}  // namespace detail

/// Bytes that `count` codes of `bits` bits take: `ceil(count * bits / 8)`, without overflow.
constexpr std::size_t packed_size(std::size_t count, int bits) {
    const auto width = static_cast<std::size_t>(bits);
    return count / 8 * width + (count % 8 * width + 7) / 8;
}

/// Stores `code - low` as unsigned fields of `bits` bits, least significant bit first.
///
/// Bit `k` of code `i` is bit `(i * bits + k) % 8` of byte `(i * bits + k) / 8`. The bits
/// left over in the last byte are zero. Invariant: `unpack_bits` is the exact inverse.
inline std::vector<std::uint8_t> pack_bits(Span<const std::int32_t> codes, int bits, std::int32_t low) {
    detail::check_bits(bits, low);
    const std::int64_t high = std::int64_t{low} + (1 << bits) - 1;
    std::vector<std::uint8_t> packed;
    packed.reserve(packed_size(codes.size(), bits));
    std::uint32_t pending = 0;  // at most 7 bits waiting for a byte, and 16 new ones
    int waiting = 0;
    for (std::size_t i = 0; i < codes.size(); ++i) {
        if (codes[i] < low || codes[i] > high) {
            throw std::invalid_argument("The code at index " + std::to_string(i) + " is " + std::to_string(codes[i]) +
                                        ", but " + std::to_string(bits) + " bits from low=" + std::to_string(low) +
                                        " hold only [" + std::to_string(low) + ", " + std::to_string(high) + "].");
        }
        pending |= static_cast<std::uint32_t>(std::int64_t{codes[i]} - low) << waiting;
        for (waiting += bits; waiting >= 8; waiting -= 8) {
            packed.push_back(static_cast<std::uint8_t>(pending));
            pending >>= 8;
        }
    }
    if (waiting > 0) packed.push_back(static_cast<std::uint8_t>(pending));
    return packed;
}

/// The `count` codes that `pack_bits` stored with the same `bits` and `low`.
///
/// Only what `pack_bits` can write is accepted: exactly `packed_size(count, bits)` bytes,
/// whose left-over bits are zero.
inline std::vector<std::int32_t> unpack_bits(Span<const std::uint8_t> packed, std::int64_t count, int bits,
                                             std::int32_t low) {
    detail::check_bits(bits, low);
    if (count < 0) {
        throw std::invalid_argument("count is " + std::to_string(count) + ", but a count of codes is not negative.");
    }
    const std::size_t expected = packed_size(static_cast<std::size_t>(count), bits);
    if (packed.size() != expected) {
        throw std::invalid_argument(std::to_string(count) + " codes of " + std::to_string(bits) + " bits take " +
                                    std::to_string(expected) + " bytes, but " + std::to_string(packed.size()) +
                                    " were given.");
    }
    std::vector<std::int32_t> codes(static_cast<std::size_t>(count));
    const std::uint32_t mask = (1u << bits) - 1;
    const std::uint8_t* next = packed.begin();
    std::uint32_t pending = 0;
    int waiting = 0;
    for (std::int32_t& code : codes) {
        for (; waiting < bits; waiting += 8) pending |= std::uint32_t{*next++} << waiting;
        code = low + static_cast<std::int32_t>(pending & mask);
        pending >>= bits;
        waiting -= bits;
    }
    if (pending != 0) {
        throw std::invalid_argument("The " + std::to_string(waiting) +
                                    " left-over bits of the last byte are not all zero: the bytes were damaged, or "
                                    "packed with another count or number of bits.");
    }
    return codes;
}

}  // namespace whit
