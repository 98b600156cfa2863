#include <cstdint>
#include <limits>
#include <vector>

#include "check.hpp"
#include "whit/bit_packing.hpp"

using Bytes = std::vector<std::uint8_t>;
using Codes = std::vector<std::int32_t>;

TEST("fields are laid least significant bit first") {
    // 0b001, 0b010, 0b111 from the right: 0b111'010'001, of which the low byte comes first.
    CHECK(whit::pack_bits(Codes{1, 2, 7}, 3, 0) == Bytes{0b11010001, 0b1});
    CHECK(whit::pack_bits(Codes{-8, 7}, 4, -8) == Bytes{0xf0});
    CHECK(whit::pack_bits(Codes{0x1234, 0xabcd}, 16, 0) == Bytes{0x34, 0x12, 0xcd, 0xab});
}

TEST("unpacking gives back every code, for every width and length") {
    for (int bits = 1; bits <= 16; ++bits) {
        for (std::size_t count = 0; count < 20; ++count) {
            const std::int32_t low = -(1 << (bits - 1));
            Codes codes(count);
            for (std::size_t i = 0; i < count; ++i) {
                codes[i] = low + static_cast<std::int32_t>((i * 40503 + 65535) % (1u << bits));
            }
            const Bytes packed = whit::pack_bits(codes, bits, low);
            CHECK(packed.size() == (count * static_cast<std::size_t>(bits) + 7) / 8);
            CHECK(whit::unpack_bits(packed, static_cast<std::int64_t>(count), bits, low) == codes);
        }
    }
}

TEST("codes at both ends of int32 survive") {
    constexpr auto lowest = std::numeric_limits<std::int32_t>::min();
    constexpr auto highest = std::numeric_limits<std::int32_t>::max();
    CHECK(whit::unpack_bits(whit::pack_bits(Codes{lowest}, 16, lowest), 1, 16, lowest) == Codes{lowest});
    CHECK(whit::unpack_bits(whit::pack_bits(Codes{highest}, 1, highest - 1), 1, 1, highest - 1) == Codes{highest});
    CHECK_ERROR(whit::pack_bits(Codes{}, 2, highest - 1), "would not fit int32");
}

TEST("codes out of range are named") {
    CHECK_ERROR(whit::pack_bits(Codes{0, 8}, 4, -8), "code at index 1 is 8");
    CHECK_ERROR(whit::pack_bits(Codes{-9}, 4, -8), "hold only [-8, 7]");
    CHECK_ERROR(whit::pack_bits(Codes{}, 0, 0), "bits is 0");
    CHECK_ERROR(whit::pack_bits(Codes{}, 17, 0), "bits is 17");
}

TEST("bytes that pack_bits cannot have written are refused") {
    CHECK_ERROR(whit::unpack_bits(Bytes{0, 0}, 2, 4, 0), "take 1 bytes, but 2 were given");
    CHECK_ERROR(whit::unpack_bits(Bytes{}, 1, 4, 0), "take 1 bytes, but 0 were given");
    CHECK_ERROR(whit::unpack_bits(Bytes{0x10}, 1, 4, 0), "4 left-over bits");
    CHECK_ERROR(whit::unpack_bits(Bytes{}, -1, 4, 0), "count is -1");
    CHECK_ERROR(whit::unpack_bits(Bytes{}, std::numeric_limits<std::int64_t>::max(), 16, 0), "but 0 were given");
}
