#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "check.hpp"
#include "forge.hpp"

using namespace forge;

namespace {

/// An array as it stands in a file, and its row in the header.
struct Stored {
    Bytes bytes;
    std::string row;
};

template <typename T>
Stored stored(const std::string& dtype, const std::string& shape, const std::vector<T>& values) {
    Stored made;
    for (const T value : values) {
        std::uint32_t bits = 0;
        std::memcpy(&bits, &value, sizeof bits);
        put(made.bytes, bits);
    }
    made.row = "[\"" + dtype + "\"," + shape + "," + std::to_string(made.bytes.size()) + "]";
    return made;
}

Stored ints(const std::string& shape, const std::vector<std::int32_t>& values) { return stored("int32", shape, values); }
Stored floats(const std::string& shape, const std::vector<float>& values) { return stored("float32", shape, values); }

/// A file with one rounded weight of shape (1, 3), given its format, further fields and its arrays after the codes.
Bytes weight(const std::string& format, const std::vector<std::int32_t>& codes, const std::vector<Stored>& more,
             const std::string& fields = "") {
    const Stored first = ints("[1,3]", codes);
    std::vector<Bytes> arrays = {first.bytes};
    std::string rows = first.row;
    for (const Stored& one : more) {
        arrays.push_back(one.bytes);
        rows += "," + one.row;
    }
    return file_of(R"({"content":{"about":{},"decisions":[{"kind":"rounded","parameter":"w","target":{)" + format +
                       R"(},"shape":[1,3],"axis":0)" + fields + R"(}]},"arrays":[)" + rows + R"(],"pools":[]})",
                   arrays);
}

const std::string fp4 = R"("kind":"float","exponent":2,"mantissa":1)";
const std::string codebook = R"("kind":"codebook","k":4)";
const Stored one = floats("[1,1]", {1});

}  // namespace

TEST("floats stand for levels times scales of every kind") {
    using Values = std::vector<double>;
    // Codes 7, 1 and -3 of fp4 are 6, 0.5 and -1.5.
    CHECK((read_all(weight(fp4, {7, 1, -3}, {floats("[1,1]", {0.25f})}))[0] == Values{1.5, 0.125, -0.375}));
    CHECK((read_all(weight(fp4 + R"(,"scale":"e8m0")", {7, 1, -3}, {ints("[1,1]", {-1})}))[0] == Values{3, 0.25, -0.75}));
    // The code 126 of e4m3 is 448, and 1 is 2^-9.
    const std::string nvfp4 = fp4 + R"(,"scale":"e4m3","per":"group","group_size":2)";
    const Bytes blocks = weight(nvfp4, {7, 1, -3}, {ints("[1,2]", {126, 1})}, R"(,"unit":0.5)");
    CHECK((read_all(blocks)[0] == Values{6 * 224, 112, -1.5 / 1024}));
    const std::string bf16 = R"("kind":"float","exponent":8,"mantissa":7,"scale":"one","per":"tensor")";
    // Patterns of bfloat16: 0x3f80 is 1, 1 is 2^-133, and 0x7f7f the largest.
    const double largest = std::ldexp(255, 120);
    CHECK((read_all(weight(bf16, {0x3f80, 1, -0x7f7f}, {one}))[0] == Values{1, std::ldexp(1, -133), -largest}));
}

TEST("a codebook stands after scales") {
    const auto file = weight(codebook, {0, 2, 1}, {floats("[1,1]", {2}), floats("[3]", {-1, 0.5, 3})});
    CHECK((read_all(file)[0] == std::vector<double>{-2, 6, 1}));
}

TEST("formats are named as in Python") {
    const auto named = [](const Bytes& file) { return whit::tensors(whit::Container::of(file, "file"))[0].stored; };
    CHECK(named(weight(fp4, {0, 0, 0}, {one})) == "fp4 e2m1 per channel");
    CHECK(named(weight(codebook, {0, 0, 0}, {one, floats("[1]", {1})})) == "codebook of 4 per tensor");
    const auto mx = weight(fp4 + R"(,"scale":"e8m0","per":"group","group_size":32)", {0, 0, 0}, {ints("[1,1]", {0})});
    CHECK(named(mx) == "fp4 e2m1 per group of 32, scales e8m0");
}

TEST("codes, zero points and fields fit their format") {
    CHECK(contains(refusal(weight(fp4, {0, 8, 0}, {one})), "8 is no code of fp4 e2m1"));
    CHECK(contains(refusal(weight(R"("kind":"int","bits":1)", {1, 0, 1}, {one})), "0 is no code of int1"));
    CHECK(contains(refusal(weight(fp4, {0, 0, 0}, {one, ints("[1,1]", {1})}, R"(,"zero_point":true)")), "1 is no zero point"));
    CHECK(contains(refusal(weight(R"("kind":"posit","bits":7)", {0, 0, 0}, {one})), "no number format posit"));
    CHECK(contains(refusal(weight(R"("kind":"float","exponent":7,"mantissa":9)", {0, 0, 0}, {one})), "at most 16 bits"));
    CHECK(contains(refusal(weight(R"("kind":"float","exponent":8,"mantissa":7)", {0, 0, 0}, {one})), "have the scale 1"));
    CHECK(contains(refusal(weight(fp4 + R"(,"scale":"one")", {0, 0, 0}, {one})), "that of a whole tensor"));
    CHECK(contains(refusal(weight(R"("kind":"int","bits":8,"scale":"one")", {0, 0, 0}, {one})), "no such scales"));
    CHECK(contains(refusal(weight(fp4 + R"(,"bits":4)", {0, 0, 0}, {one})), "a field that has no meaning"));
}

TEST("scales fit their format") {
    const auto scaled = [](const std::string& kind, const Stored& scale, const std::string& fields = "") {
        return refusal(weight(fp4 + R"(,"scale":")" + kind + R"(","per":"tensor")", {0, 1, 7}, {scale}, fields));
    };
    for (const std::int32_t power : {-127, 128}) CHECK(contains(scaled("e8m0", ints("[1,1]", {power})), "no power of two"));
    CHECK(contains(scaled("e8m0", one), "another dtype"));
    for (const std::int32_t code : {-1, 0, 127}) {
        CHECK(contains(scaled("e4m3", ints("[1,1]", {code}), R"(,"unit":1.0)"), "not positive"));
    }
    CHECK(contains(scaled("e4m3", ints("[1,1]", {1})), "a unit goes with"));
    CHECK(contains(scaled("float32", one, R"(,"unit":1.0)"), "a unit goes with"));
    CHECK(contains(scaled("e4m3", ints("[1,1]", {1}), R"(,"unit":0)"), "no positive float32"));
    CHECK(contains(scaled("e4m3", ints("[1,1]", {126}), R"(,"unit":3e38)"), "not finite and positive"));
    CHECK(contains(scaled("one", floats("[1,1]", {2})), "a scale is not 1"));
    CHECK(contains(scaled("float32", floats("[1,1]", {-1})), "not finite and positive"));
}

TEST("a codebook fits its codes") {
    const float infinite = std::numeric_limits<float>::infinity();
    const auto with = [](const Stored& values) { return refusal(weight(codebook, {0, 1, 2}, {one, values})); };
    CHECK(with(floats("[3]", {1, 2, 3})).empty());
    CHECK(contains(with(floats("[2]", {1, 2})), "no value in its codebook"));
    CHECK(contains(with(floats("[3]", {1, 3, 2})), "do not rise"));
    CHECK(contains(with(floats("[3]", {1, 2, infinite})), "do not rise"));
    CHECK(contains(with(floats("[5]", {1, 2, 3, 4, 5})), "too many"));
    CHECK(contains(with(floats("[1,3]", {1, 2, 3})), "one axis"));
    CHECK(contains(refusal(weight(codebook, {0, 1, 2}, {one})), "more arrays than there are"));
}
