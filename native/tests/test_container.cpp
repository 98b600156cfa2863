#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "check.hpp"
#include "forge.hpp"

using namespace forge;

namespace {

std::string row(const std::string& start, const Bytes& array, const std::string& way) {
    return "[" + start + "," + std::to_string(array.size()) + way + "]";
}

struct Example {
    std::vector<std::int32_t> codes = {1, -2, 3, 0, 0, 7, 1, 1, -1, 0, 0, 0};
    std::vector<Bytes> arrays;
    std::string text;

    Example() {
        const Bytes coded = whit::encode(whit::Matrix<const std::int32_t>(codes.data(), 2, 6), whit::Profile::small, 1);
        const Bytes halves = {0x00, 0x3c, 0x00, 0xc0};
        const Bytes packed = whit::pack_bits(std::vector<std::int32_t>{100, 101, 103}, 2, 100);
        const Bytes scales = whit::encode_floats(std::vector<float>{0.5f, 2.0f, 0.25f, 0.25f});
        const Bytes graph = whit::encode_bytes(Bytes(40, 'g'));
        arrays = {coded, packed, halves, graph, scales};
        text = std::string(R"({"content":{"about":{},"decisions":[{"kind":"folded","batch_norm":"n","into":"a"},)") +
               R"({"kind":"masked","parameter":"w","from":"codes"},)" +
               R"({"kind":"rounded","parameter":"w","target":{"kind":"int","bits":4},"shape":[3,2,2],"axis":1},)" +
               R"({"kind":"rounded_activation","tensor":"x","target":{"kind":"int","bits":8,"symmetric":false,)" +
               R"("per":"tensor"},"scale":0.5,"zero_point":3},)" +
               R"({"kind":"rounded_bias","parameter":"b","weight":"w","tensor":"x"},)" +
               R"({"kind":"assigned","parameter":"h"},{"kind":"assigned","parameter":"f"}],)" +
               R"("network":{"weights":[22,6,10,0]}},"arrays":[)" + row(R"("int32",[2,6])", coded, R"(,"codes")") +
               R"(,[0,[2,1]],["int32",[2],4],)" + row(R"("float16",[2])", halves, "") + ",[0,[2]]," +
               row(R"("uint8",[40])", graph, R"(,"bytes")") + R"(],"pools":[)" +
               row(R"("float32",[4])", scales, R"(,"floats")") + "]}";
        // The bias is two codes as they are packed, of which the first stand above.
        arrays[1] = whit::pack_bits(std::vector<std::int32_t>{8, -4}, 4, -4);
        text.replace(text.find(R"(["int32",[2],4])"), 15, R"(["int32",[2],1,4,-4])");
    }

    Bytes file() const { return file_of(text, arrays); }
};

}  // namespace

TEST("the tensors of a file are read") {
    const auto container = whit::Container::of(Example().file(), "file");
    const auto tensors = whit::tensors(container);
    CHECK(tensors.size() == 4);
    CHECK(tensors[0].name == "w");
    CHECK(tensors[0].stored == "int4 per channel");
    CHECK((tensors[0].shape == whit::Shape{3, 2, 2}));
    CHECK(tensors[2].stored == "float16");
    const auto values = read_all(Example().file());
    // Rows of six codes stand along axis 1, scales are 0.5 and 2.
    CHECK((values[0] == std::vector<double>{0.5, -1, 2, 2, 1.5, 0, -2, 0, 0, 3.5, 0, 0}));
    CHECK((values[1] == std::vector<double>{8 * 0.25, -4 * 1.0}));
    CHECK((values[2] == std::vector<double>{1, -2}));
    CHECK((values[3] == std::vector<double>{0.25, 0.25}));
}

TEST("the example of the specification is a file") {
    const Bytes file = file_of(
        R"({"content":{"about":{},"decisions":[{"kind":"assigned","parameter":"w"}]},"arrays":[["int8",[3],1,2,1]],"pools":[]})",
        {{0x24}});
    CHECK(file.size() == 109);
    CHECK((read_all(file)[0] == std::vector<double>{1, 2, 3}));
}

TEST("every changed byte is found") {
    const Bytes whole = Example().file();
    for (std::size_t place = 0; place < whole.size(); ++place) {
        for (const unsigned change : {1u << place % 8, 0xffu}) {
            Bytes changed = whole;
            changed[place] = static_cast<std::uint8_t>(changed[place] ^ change);
            CHECK(contains(refusal(changed), "file"));
        }
    }
}

TEST("every cut and every surplus is found") {
    const Bytes whole = Example().file();
    for (std::size_t size = 0; size < whole.size(); ++size) {
        CHECK(contains(refusal(Bytes(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size))), "file"));
    }
    Bytes more = whole;
    more.push_back(0);
    CHECK(contains(refusal(more), "bytes that its header does not account for"));
}

TEST("forged bytes of arrays are an error or read, and nothing else") {
    const Example example;
    for (std::size_t which = 0; which < example.arrays.size(); ++which) {
        for (std::size_t place = 0; place < example.arrays[which].size(); ++place) {
            for (unsigned bit = 0; bit < 8; ++bit) {
                auto arrays = example.arrays;
                arrays[which][place] = static_cast<std::uint8_t>(arrays[which][place] ^ (1u << bit));
                refusal(file_of(example.text, arrays));
            }
        }
    }
    CHECK(refusal(example.file()).empty());
}

TEST("forged text of a header is an error or read, and nothing else") {
    const Example example;
    int refused = 0;
    for (std::size_t place = 0; place < example.text.size(); ++place) {
        for (const char put : {'9', '"', ',', ']', '-'}) {
            std::string text = example.text;
            text[place] = put;
            refused += !refusal(file_of(text, example.arrays)).empty();
        }
        std::string cut = example.text;
        cut.erase(place, 1);
        refused += !refusal(file_of(cut, example.arrays)).empty();
    }
    CHECK(refused > 3 * static_cast<int>(example.text.size()));
}

TEST("what a header declares is checked before anything is made") {
    const auto entry = [](const std::string& row) {
        return refusal(file_of(R"({"content":{"about":{},"decisions":[{"kind":"assigned","parameter":"w"}]},"arrays":[)" +
                                   row + R"(],"pools":[]})",
                               {Bytes(12)}));
    };
    for (const char* row :
         {R"(["float32",[4],12])", R"(["float32",[1099511627776],12])", R"(["float32",[4294967296,4294967296],12])",
          R"(["float32",[196609],12,"floats"])", R"(["int32",[196609],12,"codes"])", R"(["uint8",[24577],12,"bytes"])",
          R"(["float32",[3],12,"codes"])", R"(["int32",[3],12,"floats"])", R"(["bool",[12],12])", R"(["bool",[12],12,"bytes"])",
          R"(["int8",[24],12,4,113])", R"(["int32",[3],12,17,0])", R"(["int32",[3],12,4,0])", R"(["object",[3],12])",
          R"(["float32",[3],12,"zip"])", R"(["float32",3,12])", R"(["float32",[3],"12"])", R"(["float32",[-3],12])", R"([])",
          R"(3)", R"([0,[3]])"}) {
        check::that(!entry(row).empty(), std::string("refuses ") + row, __FILE__, __LINE__);
    }
    CHECK(entry(R"(["float32",[3],12])").empty());
    CHECK(contains(refusal(file_of("{}", {}, 2)), "format version 2"));
    CHECK(contains(refusal(file_of(std::string(300000, ','), {})), "too many values"));
    CHECK(contains(refusal(file_of("[]", {})), "header"));
}

TEST("decisions have their fields, order and arrays") {
    const Example example;
    const auto with = [&](const std::string& old, const std::string& now) {
        std::string text = example.text;
        text.replace(text.find(old), old.size(), now);
        return refusal(file_of(text, example.arrays));
    };
    CHECK(contains(with(R"("batch_norm":"n")", R"("batch":"n")"), "decision 0: the field batch_norm is missing"));
    CHECK(contains(with(R"("into":"a")", R"("into":"a","more":1)"), "a field that has no meaning"));
    CHECK(contains(with(R"("from":"codes")", R"("from":"values")"), "masks come from codes or zeros"));
    CHECK(contains(with(R"("bits":4})", R"("bits":17})"), "from 1 to 16"));
    CHECK(contains(with(R"("bits":4})", R"("bits":3})"), "7 is no code of int3 per channel"));
    CHECK(contains(with(R"([3,2,2])", R"([3,2,3])"), "do not fill the weight"));
    CHECK(contains(with(R"("axis":1)", R"("axis":0)"), "do not fill the weight"));
    CHECK(contains(with(R"("axis":1)", R"("axis":1,"zero_point":false)"), "zero_point is true or left away"));
    CHECK(contains(with(R"("weight":"w")", R"("weight":"v")"), "needs its rounded weight"));
    CHECK(contains(with(R"("parameter":"f")", R"("parameter":"h")"), "two decisions of a kind are about h"));
    CHECK(contains(with(R"({"kind":"assigned","parameter":"f"})", R"({"kind":"folded","batch_norm":"m","into":"a"})"),
                   "not in replay order"));
    CHECK(contains(with(R"(,{"kind":"assigned","parameter":"f"})", ""), "array"));
    CHECK(contains(with(R"([22,6,10,0])", R"([22,6,10])"), "weights for other tensors"));
    CHECK(contains(with(R"("kind":"assigned","parameter":"h")", R"("kind":"given","parameter":"h")"), "no decision of kind"));
}

TEST("what was scaled is counted off") {
    const auto with = [](const std::string& decision) {
        const Bytes quarters = whit::pack_bits(std::vector<std::int32_t>{4, -4}, 4, -4);
        const std::string text = R"({"content":{"about":{},"decisions":[)" + decision +
                                 R"(,{"kind":"assigned","parameter":"h"}]},"arrays":[["int32",[2],1,4,-4],)" +
                                 row(R"("float16",[2])", {0x00, 0x3c, 0x00, 0xc0}, "") + R"(],"pools":[]})";
        return file_of(text, {quarters, {0x00, 0x3c, 0x00, 0xc0}});
    };
    const std::string scaled = R"({"kind":"scaled","group":"a","made":[["a",0,0,1]],"read":[["b",1,3,4]]})";
    const auto container = whit::Container::of(with(scaled), "file");
    CHECK(whit::tensors(container).size() == 1);
    CHECK((read_all(with(scaled))[0] == std::vector<double>{1, -2}));
    const auto changed = [&](const std::string& old, const std::string& now) {
        std::string decision = scaled;
        decision.replace(decision.find(old), old.size(), now);
        return refusal(with(decision));
    };
    CHECK(contains(changed(R"(["a",0,0,1])", R"(["a",0,0])"), "a name and three numbers"));
    CHECK(contains(changed(R"(["b",1,3,4])", R"(["b",1,3,0])"), "0"));
    CHECK(contains(changed(R"("group":"a",)", ""), "the field group is missing"));
    const std::string inputs = R"("group":"a","inputs":{"2.linear.input":0},)";
    CHECK(changed(R"("group":"a",)", inputs).empty());
    CHECK(contains(changed(R"("group":"a",)", R"("group":"a","inputs":{"x":-1},)"), "from 0 to"));
}

TEST("what was cut may say which sizes it changes") {
    const auto with = [](const std::string& sizes) {
        const std::string text = R"({"content":{"about":{},"decisions":[{"kind":"kept","group":"a","axes":[],"groups":{})" +
                                 sizes + R"(},{"kind":"assigned","parameter":"h"}]},"arrays":[)" +
                                 row(R"("float16",[2])", {0x00, 0x3c, 0x00, 0xc0}, "") + R"(],"pools":[]})";
        return refusal(file_of(text, {{0x00, 0x3c, 0x00, 0xc0}}));
    };
    CHECK(with("").empty());
    CHECK(with(R"(,"sizes":{"m":[[3,1],[4,2]]})").empty());
    CHECK(contains(with(R"(,"sizes":{"m":[[3,1],[3,2]]})"), "changed twice"));
    CHECK(contains(with(R"(,"sizes":{"m":[[0,1]]})"), "from 1 to"));
    CHECK(contains(with(R"(,"sizes":{"m":[[1]]})"), "two numbers"));
}

TEST("what was left out has names") {
    const auto with = [](const std::string& decision) {
        const std::string text = R"({"content":{"about":{},"decisions":[)" + decision +
                                 R"(,{"kind":"assigned","parameter":"h"}]},"arrays":[)" +
                                 row(R"("float16",[2])", {0x00, 0x3c, 0x00, 0xc0}, "") + R"(],"pools":[]})";
        return file_of(text, {{0x00, 0x3c, 0x00, 0xc0}});
    };
    const std::string left_out = R"({"kind":"left_out","branch":"a","identity":["a.b"],"zeros":[)";
    CHECK((read_all(with(left_out + "]}"))[0] == std::vector<double>{1, -2}));
    CHECK(contains(refusal(with(left_out + "1]}")), "decision 0"));
    const auto last = with(R"({"kind":"masked","parameter":"w","from":"codes"},)" + left_out + "]}");
    CHECK(contains(refusal(last), "not in replay order"));
}

TEST("what was factored has a form and its ranks") {
    const auto with = [](const std::string& decisions) {
        const std::string text = R"({"content":{"about":{},"decisions":[)" + decisions +
                                 R"(,{"kind":"assigned","parameter":"a.0.weight"}]},"arrays":[)" +
                                 row(R"("float16",[2])", {0x00, 0x3c, 0x00, 0xc0}, "") + R"(],"pools":[]})";
        return file_of(text, {{0x00, 0x3c, 0x00, 0xc0}});
    };
    const std::string factored = R"({"kind":"factored","layer":"a","form":"channel","ranks":[2)";
    CHECK((read_all(with(factored + ",3]}"))[0] == std::vector<double>{1, -2}));
    CHECK(contains(refusal(with(factored + "]}")), "factors have other ranks"));
    CHECK(contains(refusal(with(factored + ",0]}")), "decision 0"));
    CHECK(contains(refusal(with(factored + ",3]}," + factored + ",3]}")), "it is factored twice"));
    CHECK(contains(refusal(with(R"({"kind":"factored","layer":"a","form":"round","ranks":[2]})")), "form round"));
}

TEST("a missing file is named") {
    std::string message;
    try {
        whit::Container::open("there/is/no.whit");
    } catch (const whit::FileError& error) {
        message = error.what();
    }
    CHECK(contains(message, "there/is/no.whit"));
}
