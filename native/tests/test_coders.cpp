#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "check.hpp"
#include "whit/byte_model.hpp"
#include "whit/crc32.hpp"
#include "whit/floats.hpp"

namespace {

using Bytes = std::vector<std::uint8_t>;

Bytes bytes_of(const std::string& text) { return {text.begin(), text.end()}; }

float of_bits(std::uint32_t bits) {
    float value = 0;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

bool same(const std::vector<float>& a, const std::vector<float>& b) {
    return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), 4 * a.size()) == 0);
}

/// Whether decoding ends in an error or in something of the right size.
template <typename Decode>
bool harmless(const Decode& decode, std::size_t size) {
    try {
        return decode().size() == size;
    } catch (const std::runtime_error&) {
        return true;
    }
}

struct Random {
    std::uint32_t state = 1;
    std::uint32_t operator()() { return (state = state * 1664525u + 1013904223u) >> 8; }
};

}  // namespace

TEST("CRC-32 is that of zlib") {
    CHECK(whit::crc32(bytes_of("")) == 0);
    CHECK(whit::crc32(bytes_of("123456789")) == 0xcbf43926u);
}

TEST("bytes come back, whatever they are") {
    Random random;
    Bytes noise(5000), text, period(3000);
    for (auto& byte : noise) byte = static_cast<std::uint8_t>(random());
    for (int k = 0; k < 200; ++k) {
        const Bytes line = bytes_of("{\"kind\":\"assigned\",\"parameter\":\"layer" + std::to_string(k) + ".bias\"},");
        text.insert(text.end(), line.begin(), line.end());
    }
    for (std::size_t i = 0; i < period.size(); ++i) period[i] = static_cast<std::uint8_t>(i % 7 * 37);
    for (const Bytes& plain : {Bytes{}, Bytes{0}, Bytes{255}, Bytes(4000, 0), Bytes(2000, 255), noise, text, period}) {
        CHECK(whit::decode_bytes(whit::encode_bytes(plain), plain.size()) == plain);
    }
    CHECK(whit::encode_bytes(text).size() < text.size() / 20);
    CHECK(whit::encode_bytes(noise).size() < noise.size() + 250);
}

TEST("floats come back bit for bit") {
    Random random;
    std::vector<float> any, rounded, special;
    for (int k = 0; k < 1000; ++k) {
        any.push_back(of_bits(random() << 8 ^ random()));
        rounded.push_back(of_bits(0x3f000000u + (random() % 200 << 16)));
    }
    for (const std::uint32_t bits : {0u, 0x80000000u, 1u, 0x7f800000u, 0xff800000u, 0x7fc00001u, 0xffffffffu, 0x7f7fffffu}) {
        special.push_back(of_bits(bits));
    }
    const std::vector<float> ones(3000, 1.0f), zeros(3000, 0.0f), none;
    std::vector<float> sparse(1000, 0.0f), signs = any;
    for (std::size_t k = 0; k < 1000; k += 10) sparse[k] = rounded[k];
    for (std::size_t k = 0; k < 1000; k += 3) signs[k] = k % 2 == 0 ? 0.0f : -0.0f;
    for (const auto& values : {any, rounded, special, ones, zeros, sparse, signs, none}) {
        CHECK(same(whit::decode_floats(whit::encode_floats(values), values.size()), values));
    }
    CHECK(whit::encode_floats(rounded).size() < 1000 * 9 / 8);
    CHECK(whit::encode_floats(ones).size() < 12);
    CHECK(whit::encode_floats(zeros).size() < 12);
    // A hundred of 9 bits, as above, and 0.47 bits for each of a thousand to say which they are.
    CHECK(whit::encode_floats(sparse).size() < 100 * 9 / 8 + 59 + 30);
}

TEST("damaged bytes of both coders give an error or something of the declared size") {
    Random random;
    std::vector<float> values;
    for (int k = 0; k < 300; ++k) values.push_back(k % 4 == 0 ? 0.0f : static_cast<float>(random() % 1000) - 500.0f);
    const Bytes plain = bytes_of(std::string(300, 'a') + "something else" + std::string(300, 'b'));
    const Bytes floats = whit::encode_floats(values), bytes = whit::encode_bytes(plain);
    for (int round = 0; round < 300; ++round) {
        Bytes one = floats, other = bytes;
        if (round % 3 == 0) {
            one.resize(random() % one.size());
            other.resize(random() % other.size());
        } else {
            one[random() % one.size()] ^= static_cast<std::uint8_t>(1u << random() % 8);
            other[random() % other.size()] ^= static_cast<std::uint8_t>(1u << random() % 8);
        }
        CHECK(harmless([&] { return whit::decode_floats(one, 300); }, 300));
        CHECK(harmless([&] { return whit::decode_bytes(other, plain.size()); }, plain.size()));
    }
}

TEST("sizes that the bytes cannot hold are refused before anything is made") {
    const auto refused = [](const auto& decode) {
        try {
            decode();
        } catch (const std::runtime_error&) {
            return true;
        }
        return false;
    };
    const Bytes few = {0, 127, 0, 0};
    for (const std::size_t size : {std::size_t{1} << 20, std::size_t{1} << 62, ~std::size_t{0}}) {
        CHECK(refused([&] { whit::decode_floats(few, size); }));
        CHECK(refused([&] { whit::decode_bytes(few, size); }));
    }
    CHECK(refused([&] { whit::decode_floats({few.data(), 1}, 1); }));
    CHECK(refused([] { whit::decode_floats(Bytes{24, 127, 0}, 1); }));
    CHECK(refused([] { whit::decode_floats(Bytes{128 + 24, 127, 0}, 1); }));
}

TEST("these bytes are coded like this on every machine") {
    const Bytes bytes = {0xa0, 0x18, 0xac, 0x05, 0x04, 0x85, 0xdd};
    CHECK(whit::encode_bytes(bytes_of("whit whit whit")) == bytes);
    const Bytes floats = {0x14, 0x80, 0x7c, 0x8a, 0xcc};
    CHECK(whit::encode_floats(std::vector<float>{1.0f, -0.5f, 3.25f}) == floats);
}
