#include <cstdint>
#include <stdexcept>
#include <vector>

#include "check.hpp"
#include "whit/codec.hpp"

using Bytes = std::vector<std::uint8_t>;
using Codes = std::vector<std::int32_t>;

namespace {

// A linear congruential generator (Knuth's MMIX constants), so that the cases are the same everywhere.
std::uint32_t next(std::uint64_t& state) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return static_cast<std::uint32_t>(state >> 40);
}

Codes some_codes(std::size_t count, std::uint32_t spread) {
    std::uint64_t state = count + spread;
    Codes codes(count);
    for (auto& code : codes) {
        const auto large = static_cast<std::int32_t>(next(state) % (2 * spread + 1)) - static_cast<std::int32_t>(spread);
        code = next(state) % 3 == 0 ? large : large / 8;
    }
    return codes;
}

Bytes encode(const Codes& codes, std::size_t rows, int threads = 1) {
    return whit::encode_codes({codes.data(), rows, codes.size() / rows}, threads);
}

}  // namespace

TEST("decoding gives back every code, for small and large codes and any shape") {
    for (const std::uint32_t spread : {0u, 1u, 5u, 40u, 5000u, static_cast<std::uint32_t>(whit::largest_code)}) {
        for (std::size_t rows = 1; rows <= 7; ++rows) {
            const Codes codes = some_codes(rows * 11, spread);
            CHECK(whit::decode_codes(encode(codes, rows), rows, 11, 1) == codes);
        }
    }
}

TEST("the bytes and the codes do not depend on the number of threads") {
    const std::size_t rows = 70, columns = 40000;  // chunks of 26 rows
    const Codes codes = some_codes(rows * columns, 3);
    const Bytes bytes = encode(codes, rows, 1);
    CHECK(whit::chunk_count(rows, columns) == 3);
    CHECK(encode(codes, rows, 4) == bytes);
    CHECK(whit::decode_codes(bytes, rows, columns, 4) == codes);
}

TEST("nothing is coded as nothing") {
    CHECK(whit::encode_codes({nullptr, 0, 5}, 1).empty());
    CHECK(whit::decode_codes(Bytes{}, 0, 5, 1).empty());
    CHECK(whit::code_bits({nullptr, 5, 0}) == 0);
}

TEST("the estimate of bits is what the bytes take, but for the end of the chunk") {
    const Codes codes = some_codes(64 * 64, 6);
    const double size = static_cast<double>(encode(codes, 64).size());
    const double estimate = whit::code_bits({codes.data(), 64, 64}) / 8;
    CHECK(estimate < size && size < estimate * 1.002 + 5);
}

TEST("random bytes are decoded or refused, and nothing outside them is read") {
    std::uint64_t state = 1;
    for (int round = 0; round < 2000; ++round) {
        Bytes bytes(next(state) % 40);
        for (auto& byte : bytes) byte = static_cast<std::uint8_t>(next(state));
        const std::size_t rows = next(state) % 9, columns = next(state) % 9;
        try {
            for (const std::int32_t code : whit::decode_codes(bytes, rows, columns, 1)) {
                CHECK(-whit::largest_code <= code && code <= whit::largest_code);
            }
        } catch (const std::invalid_argument&) {
        }
    }
}

TEST("what bytes cannot hold is refused before anything is allocated") {
    CHECK_ERROR(whit::decode_codes(Bytes(8), std::size_t{1} << 40, std::size_t{1} << 20, 1), "cannot hold");
    CHECK_ERROR(encode({whit::largest_code + 1}, 1), "beyond");
}
