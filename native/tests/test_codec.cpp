#include <cstdint>
#include <limits>
#include <vector>

#include "check.hpp"
#include "whit/codec.hpp"
#include "whit/crc32.hpp"

namespace {

using Bytes = std::vector<std::uint8_t>;
using Codes = std::vector<std::int32_t>;

const std::vector<whit::Profile> profiles = {whit::Profile::small, whit::Profile::fast};

Bytes encode(const Codes& codes, std::size_t rows, std::size_t columns, whit::Profile profile, int threads = 1) {
    return whit::encode(whit::Matrix<const std::int32_t>(codes.data(), rows, columns), profile, threads);
}

struct Random {
    std::uint32_t state = 1;
    std::uint32_t operator()() { return (state = state * 1664525u + 1013904223u) >> 8; }
};

Codes some(std::size_t count, int kind) {
    Random random;
    Codes codes(count);
    for (std::int32_t& code : codes) {
        switch (kind) {
            case 0: code = 7; break;
            case 1: code = static_cast<std::int32_t>(random() % 3 * (random() % 3) * (random() % 2)); break;
            case 2: code = static_cast<std::int32_t>(random() % 65536) - 32768; break;
            case 3: code = random() % 500 == 0 ? 1 << 23 : -(1 << 23); break;
            default: code = random() % 50 == 0 ? -100 : static_cast<std::int32_t>(random() % 16); break;
        }
    }
    return codes;
}

/// Rows of 3x3 kernels of codes from -1 to 1, those of a kernel of one sign or of any.
Codes in_kernels(std::size_t rows, std::size_t inputs, bool alike) {
    Random random;
    Codes codes;
    for (std::size_t kernel = 0; kernel < rows * inputs; ++kernel) {
        std::int32_t sign = random() % 2 == 0 ? 1 : -1;
        for (int place = 0; place < 9; ++place) {
            if (!alike) sign = random() % 2 == 0 ? 1 : -1;
            codes.push_back(random() % 3 == 0 ? 0 : sign);
        }
    }
    return codes;
}

}  // namespace

TEST("decoding gives back every code, for every profile, shape and kind of code") {
    const std::vector<std::vector<std::size_t>> shapes = {
        {0, 0},  {0, 5},   {5, 0},    {1, 1},      {1, 700},    {700, 1},   {16, 27},
        {17, 9}, {15, 90}, {64, 576}, {300000, 2}, {3, 200000}, {1000, 300}};
    for (const whit::Profile profile : profiles) {
        for (const auto& shape : shapes) {
            for (int kind = 0; kind < 5; ++kind) {
                const Codes codes = some(shape[0] * shape[1], kind);
                const Bytes bytes = encode(codes, shape[0], shape[1], profile);
                CHECK(bytes == encode(codes, shape[0], shape[1], profile, 3));
                CHECK(whit::decode(bytes, shape[0], shape[1], 2) == codes);
            }
        }
    }
}

TEST("codes too far apart are refused") {
    CHECK_ERROR(encode({0, (1 << 23) + 1}, 1, 2, whit::Profile::small), "A code is 8388609");
    CHECK_ERROR(encode({std::numeric_limits<std::int32_t>::min()}, 1, 1, whit::Profile::fast), "can be encoded");
}

TEST("damaged bytes give an error or some matrix, never more") {
    Random random;
    for (const whit::Profile profile : profiles) {
        for (int kind = 0; kind < 5; ++kind) {
            const Bytes whole = encode(some(64 * 300, kind), 64, 300, profile);
            for (int round = 0; round < 150; ++round) {
                Bytes bytes = whole;
                const std::size_t reach = round % 2 == 0 ? bytes.size() : std::min<std::size_t>(bytes.size(), 60);
                const std::size_t at = random() % reach;
                if (round % 3 == 0) bytes.resize(at);
                else bytes[at] = static_cast<std::uint8_t>(bytes[at] ^ (1u << random() % 8));
                try {
                    CHECK(whit::decode(bytes, 64, 300, 1).size() == 64 * 300);
                } catch (const std::runtime_error&) {
                    CHECK(true);
                }
            }
        }
    }
}

TEST("a shape that the bytes cannot hold is refused before anything is made") {
    for (const std::size_t rows : {std::size_t{1} << 20, std::size_t{1} << 62, ~std::size_t{0}}) {
        for (const std::uint8_t profile : {std::uint8_t{1}, std::uint8_t{2}}) {
            bool refused = false;
            try {
                whit::decode(Bytes{profile, 0, 0}, rows, rows, 1);
            } catch (const std::runtime_error&) {
                refused = true;
            }
            CHECK(refused);
        }
    }
}

TEST("these codes have these bytes on every machine") {
    const Codes codes = {0, 1, -1, 0, 2, 0, 0, -3, 40, 0, 0, 1};
    CHECK(whit::decode(encode(codes, 3, 4, whit::Profile::small), 3, 4, 1) == codes);
    const Bytes small = {
        0x01, 0x00, 0x58, 0xdf, 0x08, 0xb5, 0x33, 0x44, 0xa1, 0x75, 0x43};
    CHECK(encode(codes, 3, 4, whit::Profile::small) == small);
    const Bytes fast = {0x02, 0x00, 0x2b, 0x00, 0x01, 0x50, 0xfe, 0x68, 0x3b, 0x27, 0x51,
                        0xac, 0x2e, 0x00, 0xab, 0x89, 0x2e, 0x00, 0x7f, 0xa4, 0xb6, 0x01};
    CHECK(encode(codes, 3, 4, whit::Profile::fast) == fast);
    const Codes kernels = in_kernels(32, 16, true);
    CHECK(whit::crc32(encode(kernels, 32, 144, whit::Profile::small)) == 0x829f7c59u);
    CHECK(whit::crc32(encode(kernels, 32, 144, whit::Profile::fast)) == 0x45d16c31u);
}

TEST("signs that agree within kernels cost less than signs at random, for every profile") {
    for (const whit::Profile profile : profiles) {
        const auto agreeing = static_cast<double>(encode(in_kernels(32, 64, true), 32, 576, profile).size());
        const auto random = static_cast<double>(encode(in_kernels(32, 64, false), 32, 576, profile).size());
        CHECK(agreeing < 0.85 * random);
    }
}

TEST("codes of many bits cost no more than their bits, for every profile") {
    for (const whit::Profile profile : profiles) {
        CHECK(encode(some(64 * 300, 2), 64, 300, profile).size() < 64 * 300 * 21 / 10);
    }
}

TEST("codes that are far from all others cost by themselves") {
    Codes codes(64 * 300, 0);
    for (std::size_t i = 0; i < codes.size(); i += 300) codes[i] = 1 << 20;
    // 64 of them, of 4 bytes and 9 bits that say so, and 0.1 bits for each of the others.
    CHECK(encode(codes, 64, 300, whit::Profile::fast).size() < 64 * 5 + 64 * 300 / 80);
}
