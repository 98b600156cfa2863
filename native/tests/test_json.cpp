#include <string>

#include "check.hpp"
#include "whit/json.hpp"

namespace {

bool refused(const std::string& text) {
    try {
        whit::read_json(text);
    } catch (const std::runtime_error&) {
        return true;
    }
    return false;
}

std::string text(const std::string& told) { return whit::read_json(told).text(); }

}  // namespace

TEST("JSON is read as it stands") {
    const whit::Json value = whit::read_json(R"( {"a": [1, -20, 0.5, 1e3, true, null], "b": {"c": "d"}} )");
    const auto& list = value.at("a").list();
    CHECK(list.size() == 6);
    CHECK(list[0].whole(0, 1) == 1);
    CHECK(list[1].whole(-20, 0) == -20);
    CHECK(list[2].number() == 0.5);
    CHECK(list[3].number() == 1000);
    CHECK(list[4].is_true());
    CHECK(value.at("b").at("c").text() == "d");
    CHECK(whit::read_json("[]").list().empty());
    CHECK(whit::read_json("{}").table().empty());
}

TEST("texts are UTF-8, with escapes") {
    CHECK(text(R"("\"\\\/\b\f\n\r\t")") == "\"\\/\b\f\n\r\t");
    CHECK(text(R"("\u0041\u00e9\u20AC\ud83d\ude00")") == "A\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80");
    CHECK(text("\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\"") == "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80");
}

TEST("what is no JSON is refused") {
    for (const char* wrong :
         {"", " ", "{", "[", "[1,]", "[1 2]", "{\"a\"}", "{\"a\":1,}", "{a:1}", "{\"a\":1,\"a\":2}", "01", "+1", "-", "1.",
          ".5", "1e", "NaN", "Infinity", "-Infinity", "1e999", "tru", "nul", "[] []", "'a'", "\"", "\"\\x\"", "\"\\u12g4\"",
          "\"\\ud800\"", "\"\\udc00\"", "\"\\ud800\\u0041\"", "\"a\nb\"", "\"\xff\"", "\"\xc0\x80\"", "\"\xc1\xbf\"",
          "\"\xed\xa0\x80\"", "\"\xf4\x90\x80\x80\"", "\"\xe2\x82\"", "\"\xe2", "\"\\", "\"\\u00", "\xef\xbb\xbf{}"}) {
        check::that(refused(wrong), std::string("refuses ") + wrong, __FILE__, __LINE__);
    }
    CHECK(refused(std::string("[\0]", 3)));
    CHECK(refused(std::string(100000, '[')));
    CHECK(refused(std::string(100000, '[') + std::string(100000, ']')));
    CHECK(!refused(std::string(60, '[') + std::string(60, ']')));
}

TEST("asking for what a value is not is an error") {
    const whit::Json value = whit::read_json(R"({"a": 1.0, "b": true, "c": 123456789012345678901234567890, "d": "1"})");
    for (const char* name : {"a", "b", "c", "d", "e"}) {
        bool thrown = false;
        try {
            value.at(name).whole(0, 100);
        } catch (const std::runtime_error&) {
            thrown = true;
        }
        CHECK(thrown);
    }
    CHECK(value.at("c").number() > 1e29);
}
