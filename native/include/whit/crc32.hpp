// The checksum of zlib and PNG.
#pragma once

#include <array>
#include <cstdint>

#include "whit/span.hpp"

namespace whit {

/// CRC-32 with the polynomial 0xEDB88320.
inline std::uint32_t crc32(Span<const std::uint8_t> bytes) {
    static const std::array<std::uint32_t, 256> table = [] {
        std::array<std::uint32_t, 256> made{};
        for (std::uint32_t byte = 0; byte < 256; ++byte) {
            std::uint32_t rest = byte;
            for (int k = 0; k < 8; ++k) rest = rest >> 1 ^ ((rest & 1) != 0 ? 0xedb88320u : 0u);
            made[byte] = rest;
        }
        return made;
    }();
    std::uint32_t sum = 0xffffffffu;
    for (const std::uint8_t byte : bytes) sum = sum >> 8 ^ table[(sum ^ byte) & 255];
    return ~sum;
}

}  // namespace whit
