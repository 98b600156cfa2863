// Number formats of weights in a `.whit` file: which codes there are, and which real number each stands for.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "whit/json.hpp"

namespace whit {

/// `Int`, `Float` or `Codebook`, as in Python.
struct Format {
    enum class Kind { integer, floating, codebook };
    enum class Per { tensor, channel, group };
    enum class Scale { float32, e8m0, e4m3, one };

    Kind kind = Kind::integer;
    int bits = 8;  // of a code, its sign included
    Per per = Per::channel;
    std::int64_t group_size = 0;  // with Per::group only
    Scale scale = Scale::float32;
    bool symmetric = true;           // of integers
    bool reduce_range = false;       // likewise
    int exponent = 0, mantissa = 0;  // bits of floats
    int values = 0;                  // of a codebook, at most

    std::int32_t high() const {
        if (kind == Kind::codebook) return values - 1;
        if (kind == Kind::floating) {
            const std::int32_t count = 1 << (exponent + mantissa);
            if (exponent == 4 && mantissa == 3) return count - 2;  // one NaN, no infinity
            return count - 1 - (bits >= 8 ? 1 << mantissa : 0);
        }
        if (symmetric) return reduce_range ? 1 << (bits - 2) : std::max((1 << (bits - 1)) - 1, 1);
        return (1 << (bits - (reduce_range ? 1 : 0))) - 1;
    }

    std::int32_t low() const {
        return kind == Kind::floating || (kind == Kind::integer && symmetric) ? -high() : 0;
    }

    bool has(std::int32_t code) const {
        const bool binary = kind == Kind::integer && symmetric && bits == 1;
        return low() <= code && code <= high() && !(binary && code == 0);
    }

    /// How many neighbouring columns of a row of `columns` share a scale.
    std::uint64_t block(std::uint64_t columns) const {
        return per == Per::group ? std::min(static_cast<std::uint64_t>(group_size), columns) : columns;
    }

    /// What a code of floats stands for at scale 1.
    float level(std::int32_t code) const {
        const std::int32_t magnitude = code < 0 ? -code : code;
        const int field = std::max(magnitude >> mantissa, 1);
        const int smallest = 2 - (1 << (exponent - 1)) - mantissa;
        const auto steps = static_cast<float>(magnitude - ((field - 1) << mantissa));
        const float value = std::ldexp(steps, field - 1 + smallest);
        return code < 0 ? -value : value;
    }

    /// In words: `int4 per group of 32`.
    std::string text() const {
        if (scale == Scale::one) return name();
        const std::string group = per == Per::group ? "group of " + std::to_string(group_size) : "";
        const std::string shared = per == Per::group ? group : (per == Per::tensor ? "tensor" : "channel");
        const char* const few_bits = scale == Scale::e8m0 ? ", scales e8m0" : ", scales e4m3";
        return name() + " per " + shared + (scale == Scale::float32 ? "" : few_bits);
    }

private:
    std::string name() const {
        if (kind == Kind::codebook) return "codebook of " + std::to_string(values);
        if (kind == Kind::integer) return (symmetric ? "int" : "uint") + std::to_string(bits);
        if (exponent == 5 && mantissa == 10) return "fp16";
        if (exponent == 8 && mantissa == 7) return "bf16";
        return "fp" + std::to_string(bits) + " e" + std::to_string(exponent) + "m" + std::to_string(mantissa);
    }
};

namespace detail {

inline Format::Scale scale_of(const Json::Table& fields) {
    const std::string scale = fields.count("scale") == 0 ? "float32" : fields.at("scale").text();
    if (scale == "float32") return Format::Scale::float32;
    if (scale == "e8m0") return Format::Scale::e8m0;
    if (scale == "e4m3") return Format::Scale::e4m3;
    if (scale == "one") return Format::Scale::one;
    throw std::runtime_error("there are no scales of " + scale.substr(0, 40));
}

inline void read_layout(const Json::Table& fields, Format& format) {
    const std::string normal = format.kind == Format::Kind::codebook ? "tensor" : "channel";
    const std::string per = fields.count("per") == 0 ? normal : fields.at("per").text();
    if (per != "tensor" && per != "channel" && per != "group") throw std::runtime_error("per is none of three");
    format.per = per == "tensor" ? Format::Per::tensor : (per == "channel" ? Format::Per::channel : Format::Per::group);
    if ((per == "group") != (fields.count("group_size") != 0)) throw std::runtime_error("groups have a size");
    if (per == "group") format.group_size = fields.at("group_size").whole(1, std::int64_t{1} << 48);
}

inline Format integers_of(const Json::Table& fields) {
    Format format;
    format.bits = static_cast<int>(fields.at("bits").whole(1, 16));
    if (fields.count("symmetric") != 0) format.symmetric = fields.at("symmetric").truth();
    if (fields.count("reduce_range") != 0) format.reduce_range = fields.at("reduce_range").truth();
    if (format.reduce_range && format.bits < 3) throw std::runtime_error("2 bits have no range to reduce");
    format.scale = scale_of(fields);
    const bool whole = format.symmetric && !format.reduce_range && format.scale != Format::Scale::one;
    if (format.scale != Format::Scale::float32 && !whole) throw std::runtime_error("integers have no such scales");
    return format;
}

inline Format floats_of(const Json::Table& fields) {
    Format format;
    format.kind = Format::Kind::floating;
    format.exponent = static_cast<int>(fields.at("exponent").whole(2, 8));
    format.mantissa = static_cast<int>(fields.at("mantissa").whole(0, 10));
    format.bits = 1 + format.exponent + format.mantissa;
    format.scale = scale_of(fields);
    if (format.bits > 16) throw std::runtime_error("floats have at most 16 bits");
    if (format.exponent == 8 && format.scale != Format::Scale::one) {
        throw std::runtime_error("floats with 8 bits of exponent have the scale 1");
    }
    return format;
}

inline Format codebook_of(const Json::Table& fields) {
    Format format;
    format.kind = Format::Kind::codebook;
    format.values = static_cast<int>(fields.at("k").whole(2, 256));
    for (format.bits = 1; 1 << format.bits < format.values;) ++format.bits;
    return format;
}

inline Format format_of(const Json& value) {
    const std::string& kind = value.at("kind").text();
    Format format;
    const Json::Table* fields = nullptr;
    if (kind == "int") {
        fields = &value.table({"kind", "bits"}, {"symmetric", "per", "group_size", "reduce_range", "scale"});
        format = integers_of(*fields);
    } else if (kind == "float") {
        fields = &value.table({"kind", "exponent", "mantissa"}, {"per", "group_size", "scale"});
        format = floats_of(*fields);
    } else if (kind == "codebook") {
        fields = &value.table({"kind", "k"}, {"per", "group_size"});
        format = codebook_of(*fields);
    } else {
        throw std::runtime_error("there is no number format " + kind.substr(0, 40));
    }
    read_layout(*fields, format);
    if (format.scale == Format::Scale::one && format.per != Format::Per::tensor) {
        throw std::runtime_error("the scale 1 is that of a whole tensor");
    }
    return format;
}

}  // namespace detail

}  // namespace whit
