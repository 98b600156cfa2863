// JSON (RFC 8259) as the header of a file has it: read strictly, within bounds, and asked for what should be there.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <locale>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace whit {

/// A value of JSON. Asking for what it is not is a std::runtime_error that says so.
class Json {
public:
    using List = std::vector<Json>;
    using Table = std::map<std::string, Json>;

    Json() = default;
    template <typename T>
    explicit Json(T value) : value_(std::move(value)) {}

    bool is_text() const { return std::holds_alternative<std::string>(value_); }
    bool is_whole() const { return std::holds_alternative<std::int64_t>(value_); }
    bool is_list() const { return std::holds_alternative<List>(value_); }
    bool is_true() const { return std::holds_alternative<bool>(value_) && std::get<bool>(value_); }

    const std::string& text() const { return as<std::string>("a name"); }
    const List& list() const { return as<List>("a list"); }
    const Table& table() const { return as<Table>("a table"); }

    /// A whole number from `low` to `high`.
    std::int64_t whole(std::int64_t low, std::int64_t high) const {
        const auto* value = std::get_if<std::int64_t>(&value_);
        if (value == nullptr || *value < low || *value > high) {
            wrong("a whole number from " + std::to_string(low) + " to " + std::to_string(high));
        }
        return *value;
    }

    bool truth() const { return as<bool>("true or false"); }

    /// Any number.
    double number() const {
        if (const auto* value = std::get_if<std::int64_t>(&value_)) return static_cast<double>(*value);
        return as<double>("a number");
    }

    /// A field of a table.
    const Json& at(const char* name) const {
        const auto found = table().find(name);
        if (found == table().end()) throw std::runtime_error("the field " + std::string(name) + " is missing");
        return found->second;
    }

    /// A table with all of the needed fields, and no other but the optional ones.
    const Table& table(std::initializer_list<const char*> needed, std::initializer_list<const char*> optional = {}) const {
        const Table& fields = table();
        std::size_t known = 0;
        for (const char* name : needed) {
            at(name);
            ++known;
        }
        for (const char* name : optional) known += fields.count(name);
        if (fields.size() != known) throw std::runtime_error("there is a field that has no meaning");
        return fields;
    }

private:
    template <typename T>
    const T& as(const char* what) const {
        if (const auto* value = std::get_if<T>(&value_)) return *value;
        wrong(what);
    }

    [[noreturn]] static void wrong(const std::string& what) {
        throw std::runtime_error("something else stands where " + what + " is needed");
    }

    std::variant<std::monostate, bool, std::int64_t, double, std::string, List, Table> value_;
};

namespace detail {

/// Reads one text; whatever is no JSON is a std::runtime_error that names the byte.
class JsonReader {
public:
    explicit JsonReader(std::string_view text) : text_(text) {}

    Json read() {
        Json value = any(0);
        space();
        if (at_ != text_.size()) fail("there is more behind its end");
        return value;
    }

private:
    static constexpr int deepest = 64;

    [[noreturn]] void fail(const char* what) const {
        throw std::runtime_error("the text is not JSON at byte " + std::to_string(at_) + ": " + what);
    }

    bool ends() const { return at_ == text_.size(); }
    char next() const { return ends() ? '\0' : text_[at_]; }

    void space() {
        while (!ends() && (next() == ' ' || next() == '\t' || next() == '\n' || next() == '\r')) ++at_;
    }

    bool take(char mark) {
        space();
        if (next() != mark || ends()) return false;
        ++at_;
        return true;
    }

    void need(char mark) {
        if (!take(mark)) fail("a mark is missing");
    }

    bool word(std::string_view wanted) {
        if (text_.substr(at_, wanted.size()) != wanted) return false;
        at_ += wanted.size();
        return true;
    }

    Json any(int depth) {
        if (depth > deepest) fail("it is nested too deep");
        space();
        if (take('{')) return Json(table(depth));
        if (take('[')) return Json(list(depth));
        if (take('"')) return Json(string());
        if (word("true")) return Json(true);
        if (word("false")) return Json(false);
        if (word("null")) return Json();
        return number();
    }

    Json::Table table(int depth) {
        Json::Table found;
        if (take('}')) return found;
        do {
            need('"');
            std::string name = string();
            need(':');
            if (!found.emplace(std::move(name), any(depth + 1)).second) fail("a field stands twice in one table");
        } while (take(','));
        need('}');
        return found;
    }

    Json::List list(int depth) {
        Json::List found;
        if (take(']')) return found;
        do {
            found.push_back(any(depth + 1));
        } while (take(','));
        need(']');
        return found;
    }

    Json number() {
        const std::size_t first = at_;
        if (next() == '-') ++at_;
        if (next() == '0') {
            ++at_;
        } else {
            digits();
        }
        bool whole = true;
        if (next() == '.') {
            whole = false;
            ++at_;
            digits();
        }
        if (next() == 'e' || next() == 'E') {
            whole = false;
            ++at_;
            if (next() == '+' || next() == '-') ++at_;
            digits();
        }
        const std::string_view told = text_.substr(first, at_ - first);
        if (whole && told.size() <= 18) return Json(integer(told));
        // Streams of the classic locale read a point everywhere, unlike strtod.
        std::istringstream stream{std::string(told)};
        stream.imbue(std::locale::classic());
        double value = 0;
        if (!(stream >> value) || !std::isfinite(value)) fail("a number is beyond float64");
        return Json(value);
    }

    /// A number that is known to fit.
    static std::int64_t integer(std::string_view told) {
        const bool negative = told[0] == '-';
        std::int64_t value = 0;
        for (const char digit : told.substr(negative ? 1 : 0)) value = 10 * value + (digit - '0');
        return negative ? -value : value;
    }

    void digits() {
        if (next() < '0' || next() > '9') fail("a digit is missing");
        while (next() >= '0' && next() <= '9') ++at_;
    }

    std::string string() {
        std::string found;
        while (true) {
            if (ends()) fail("a text does not end");
            const auto byte = static_cast<unsigned char>(text_[at_]);
            if (byte < 0x20) fail("a text holds a control character");
            if (byte == '"') {
                ++at_;
                return found;
            }
            if (byte == '\\') {
                ++at_;
                escaped(found);
            } else {
                put(found, byte < 0x80 ? text_[at_++] : character());
            }
        }
    }

    void escaped(std::string& found) {
        constexpr std::string_view marks = "\"\\/bfnrt", meant = "\"\\/\b\f\n\r\t";
        const std::size_t place = ends() ? std::string_view::npos : marks.find(next());
        if (place != std::string_view::npos) {
            ++at_;
            found.push_back(meant[place]);
            return;
        }
        if (!word("u")) fail("there is no such escape");
        std::uint32_t code = hexadecimal();
        if (code >= 0xd800 && code < 0xdc00 && word("\\u")) {
            const std::uint32_t low = hexadecimal();
            if (low < 0xdc00 || low > 0xdfff) fail("there is half of a surrogate pair");
            put(found, 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00));
            return;
        }
        if (code >= 0xd800 && code <= 0xdfff) fail("there is half of a surrogate pair");
        put(found, code);
    }

    std::uint32_t hexadecimal() {
        std::uint32_t code = 0;
        for (int k = 0; k < 4; ++k) {
            constexpr std::string_view digits = "0123456789abcdef0123456789ABCDEF";
            const std::size_t place = ends() ? std::string_view::npos : digits.find(next());
            if (place == std::string_view::npos) fail("an escape needs four hexadecimal digits");
            code = 16 * code + static_cast<std::uint32_t>(place % 16);
            ++at_;
        }
        return code;
    }

    /// A character of two to four bytes in UTF-8, in the only form it may have.
    std::uint32_t character() {
        const auto lead = static_cast<unsigned char>(text_[at_]);
        const int more = lead >= 0xf0 ? 3 : (lead >= 0xe0 ? 2 : 1);
        constexpr std::uint32_t least[] = {0, 0x80, 0x800, 0x10000};
        std::uint32_t code = lead & (0x3fu >> more);
        if (lead < 0xc2 || lead > 0xf4) fail("it is not UTF-8");
        for (int k = 1; k <= more; ++k) {
            const std::size_t place = at_ + static_cast<std::size_t>(k);
            const auto byte = place < text_.size() ? static_cast<unsigned char>(text_[place]) : 0u;
            if ((byte & 0xc0u) != 0x80u) fail("it is not UTF-8");
            code = code << 6 | (byte & 0x3fu);
        }
        if (code < least[more] || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff)) fail("it is not UTF-8");
        at_ += static_cast<std::size_t>(more) + 1;
        return code;
    }

    static void put(std::string& found, std::uint32_t code) {
        const auto byte = [&](std::uint32_t value) { found.push_back(static_cast<char>(value)); };
        if (code < 0x80) {
            byte(code);
        } else if (code < 0x800) {
            byte(0xc0 | code >> 6);
            byte(0x80 | (code & 0x3f));
        } else if (code < 0x10000) {
            byte(0xe0 | code >> 12);
            byte(0x80 | (code >> 6 & 0x3f));
            byte(0x80 | (code & 0x3f));
        } else {
            byte(0xf0 | code >> 18);
            byte(0x80 | (code >> 12 & 0x3f));
            byte(0x80 | (code >> 6 & 0x3f));
            byte(0x80 | (code & 0x3f));
        }
    }

    std::string_view text_;
    std::size_t at_ = 0;
};

}  // namespace detail

/// The value of a text. Throws std::runtime_error where it is no JSON, or names a field twice in one table.
inline Json read_json(std::string_view text) { return detail::JsonReader(text).read(); }

}  // namespace whit
