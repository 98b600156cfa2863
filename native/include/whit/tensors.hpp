// The tensors of a network in a `.whit` file: what there is, told by the header, and the values of each, read alone.
//
//     const std::vector<whit::Tensor> tensors = whit::tensors(container);
//     const std::vector<double> values = whit::values_of(container, tensors, 0);
//
// A tensor's values are those with which the compressed network computes, in the tensor's own shape and C order. Masks
// are counted off and not read: where a weight was masked its value is zero.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "whit/container.hpp"
#include "whit/format.hpp"
#include "whit/quantize.hpp"

namespace whit {

/// A parameter or buffer, as the header tells of it.
struct Tensor {
    enum class Kind { rounded, rounded_bias, assigned };

    std::string name;
    Kind kind;
    Shape shape;
    std::string stored;   // in words
    int bits;             // of a value, before it was coded
    std::uint64_t bytes;  // in the file, masks included
    std::size_t first;    // place of its first array
    std::size_t arrays;   // how many it has

    Format format{};              // of a rounded one
    bool has_zero_point = false;  // likewise: whether zero points are stored
    double unit = 1;              // likewise: of scales of e4m3
    std::size_t axis = 0;         // likewise: of the output channels
    std::size_t weight = 0;       // of a rounded bias: place of its layer's weight among the tensors
    float step = 0;               // likewise: the scale of what its layer reads
};

namespace detail {

/// Reads the tables of decisions in order, and counts off the arrays that belong to each.
class Decisions {
public:
    explicit Decisions(const Container& container) : container_(container) {}

    std::vector<Tensor> read() {
        const Json::Table& content = container_.content().table({"about", "decisions"}, {"network"});
        content.at("about").table();
        const Json::List& tables = content.at("decisions").list();
        for (std::size_t place = 0; place < tables.size(); ++place) {
            reading(container_.name() + ", decision " + std::to_string(place), [&] { add(tables[place]); });
        }
        if (content.count("network") != 0) network(content.at("network").table({"weights"}));
        if (next_ != container_.pieces().size()) throw std::runtime_error("there are arrays that belong to no decision");
        for (Tensor& tensor : tensors_) {
            const auto mask = masks_.find(tensor.name);
            if (mask != masks_.end()) tensor.bytes += mask->second;
        }
        return std::move(tensors_);
    }

private:
    void add(const Json& value) {
        const std::string& kind = value.at("kind").text();
        constexpr const char* kinds[] = {"folded", "scaled",  "kept",               "left_out",     "factored",
                                         "masked", "rounded", "rounded_activation", "rounded_bias", "assigned"};
        const auto* const known = std::find_if(std::begin(kinds), std::end(kinds), [&](auto one) { return kind == one; });
        if (known == std::end(kinds)) throw std::runtime_error("there is no decision of kind " + kind.substr(0, 40));
        // What is folded, scaled, kept, left out and factored may alternate.
        const auto stage = std::max<std::ptrdiff_t>(known - std::begin(kinds), 4);
        if (stage < stage_) throw std::runtime_error("the decisions are not in replay order");
        stage_ = stage;
        if (kind == "folded") return folded(value.table({"kind", "batch_norm", "into"}));
        if (kind == "scaled") return scaled(value.table({"kind", "group", "made", "read"}, {"inputs"}));
        if (kind == "kept") return kept(value.table({"kind", "group", "axes", "groups"}, {"sizes"}));
        if (kind == "left_out") return left_out(value.table({"kind", "branch", "identity", "zeros"}));
        if (kind == "factored") return factored(value.table({"kind", "layer", "form", "ranks"}));
        if (kind == "masked") return masked(value.table({"kind", "parameter"}, {"from"}));
        if (kind == "rounded") {
            return rounded(value.table({"kind", "parameter", "target", "shape", "axis"}, {"zero_point", "unit"}));
        }
        if (kind == "rounded_activation") return activation(value.table({"kind", "tensor", "target", "scale", "zero_point"}));
        if (kind == "rounded_bias") return bias(value.table({"kind", "parameter", "weight", "tensor"}));
        assigned(value.table({"kind", "parameter"}));
    }

    /// The graph is the last array; of each tensor it says as which ONNX type it stands there.
    void network(const Json::Table& fields) {
        const Shape& graph = shape(take(1), Dtype::uint8);
        if (graph.size() != 1) throw std::runtime_error("the network's graph is not an array of bytes");
        const Json::List& weights = fields.at("weights").list();
        for (const Json& type : weights) type.whole(0, 22);
        if (weights.size() != tensors_.size()) throw std::runtime_error("the network has weights for other tensors");
    }

    /// The next arrays, of which there must be so many.
    std::size_t take(std::size_t count) {
        if (container_.pieces().size() - next_ < count) throw std::runtime_error("it needs more arrays than there are");
        next_ += count;
        return next_ - count;
    }

    const Shape& shape(std::size_t place, Dtype dtype) const {
        if (container_.entry(place).dtype != dtype) {
            throw std::runtime_error(std::string("an array of another dtype stands where ") + name_of(dtype) + " is needed");
        }
        return container_.pieces()[place].shape;
    }

    std::uint64_t bytes(std::size_t first, std::size_t count) const {
        std::uint64_t sum = 0;
        for (std::size_t place = first; place < first + count; ++place) sum += container_.length(place);
        return sum;
    }

    void once(const Json& name) {
        if (!names_.insert({stage_, name.text()}).second) {
            throw std::runtime_error("two decisions of a kind are about " + name.text().substr(0, 80));
        }
    }

    void folded(const Json::Table& fields) {
        fields.at("into").text();
        if (!folded_.insert(fields.at("batch_norm").text()).second) throw std::runtime_error("it is folded twice");
    }

    void scaled(const Json::Table& fields) {
        fields.at("group").text();
        for (const char* const spans : {"made", "read"}) {
            for (const Json& span : fields.at(spans).list()) {
                if (span.list().size() != 4) throw std::runtime_error("channels lie at a name and three numbers");
                span.list()[0].text();
                for (std::size_t place = 1; place < 4; ++place) span.list()[place].whole(place == 3, most_bytes);
            }
        }
        if (const auto inputs = fields.find("inputs"); inputs != fields.end()) {
            for (const auto& [name, behind] : inputs->second.table()) behind.whole(0, most_bytes);
        }
        if (shape(take(1), Dtype::int32).size() != 1) throw std::runtime_error("factors of channels have one axis");
    }

    void kept(const Json::Table& fields) {
        fields.at("group").text();
        std::set<std::pair<std::string, std::int64_t>> cut;
        for (const Json& axis : fields.at("axes").list()) {
            if (axis.list().size() != 2) throw std::runtime_error("an axis is a name and a number");
            const std::string& name = axis.list()[0].text();
            if (!cut.insert({name, axis.list()[1].whole(0, most_bytes)}).second) {
                throw std::runtime_error("an axis of " + name.substr(0, 80) + " is cut twice");
            }
            if (shape(take(1), Dtype::int64).size() != 1) throw std::runtime_error("kept indices have one axis");
        }
        for (const auto& [name, count] : fields.at("groups").table()) count.whole(1, most_bytes);
        if (const auto sizes = fields.find("sizes"); sizes != fields.end()) {
            for (const auto& [name, changes] : sizes->second.table()) resized(name, changes.list());
        }
    }

    void resized(const std::string& name, const Json::List& changes) {
        std::set<std::int64_t> changed;
        for (const Json& change : changes) {
            if (change.list().size() != 2) throw std::runtime_error("a size and what it becomes are two numbers");
            change.list()[1].whole(1, most_bytes);
            if (!changed.insert(change.list()[0].whole(1, most_bytes)).second) {
                throw std::runtime_error("a size of " + name.substr(0, 80) + " is changed twice");
            }
        }
    }

    static void left_out(const Json::Table& fields) {
        fields.at("branch").text();
        for (const char* const modules : {"identity", "zeros"}) {
            for (const Json& module : fields.at(modules).list()) module.text();
        }
    }

    void factored(const Json::Table& fields) {
        const std::string& form = fields.at("form").text();
        if (form != "matrix" && form != "spatial" && form != "channel") {
            throw std::runtime_error("there are no factors in the form " + form.substr(0, 40));
        }
        const Json::List& ranks = fields.at("ranks").list();
        for (const Json& rank : ranks) rank.whole(1, most_bytes);
        if (ranks.size() != (form == "channel" ? 2 : 1)) throw std::runtime_error("factors have other ranks");
        if (!factored_.insert(fields.at("layer").text()).second) throw std::runtime_error("it is factored twice");
    }

    void masked(const Json::Table& fields) {
        once(fields.at("parameter"));
        const std::string source = fields.count("from") == 0 ? "" : fields.at("from").text();
        if (fields.count("from") != 0 && source != "codes" && source != "zeros") {
            throw std::runtime_error("masks come from codes or zeros");
        }
        std::uint64_t& size = masks_[fields.at("parameter").text()];
        if (source == "codes") return;
        const std::size_t place = take(1);
        const std::size_t axes = shape(place, Dtype::boolean).size();
        if (source == "zeros" && axes != 1) throw std::runtime_error("the mask of zeros has one axis");
        size = container_.length(place);
    }

    void rounded(const Json::Table& fields) {
        once(fields.at("parameter"));
        Tensor tensor{};
        tensor.name = fields.at("parameter").text();
        tensor.kind = Tensor::Kind::rounded;
        tensor.format = format_of(fields.at("target"));
        tensor.shape = shape_of(fields.at("shape"));
        tensor.axis = static_cast<std::size_t>(fields.at("axis").whole(0, most_bytes));
        tensor.has_zero_point = fields.count("zero_point") != 0;
        if (tensor.has_zero_point && !fields.at("zero_point").is_true()) {
            throw std::runtime_error("zero_point is true or left away");
        }
        const bool learned = tensor.format.kind == Format::Kind::codebook;
        tensor.unit = unit(fields, tensor.format.scale);
        tensor.arrays = std::size_t{2} + tensor.has_zero_point + learned;
        tensor.first = take(tensor.arrays);
        const Shape& codes = shape(tensor.first, Dtype::int32);
        if (codes.size() != 2 || tensor.axis >= tensor.shape.size() || tensor.shape[tensor.axis] != codes[0] ||
            count_of(tensor.shape) != count_of(codes)) {
            throw std::runtime_error("the codes do not fill the weight");
        }
        const std::uint64_t block = tensor.format.block(codes[1]);
        const std::uint64_t groups = codes[1] == 0 ? 0 : codes[1] / block + (codes[1] % block != 0);
        const Shape scales = {tensor.format.per == Format::Per::tensor ? 1 : codes[0], groups};
        const bool few_bits = tensor.format.scale == Format::Scale::e8m0 || tensor.format.scale == Format::Scale::e4m3;
        if (shape(tensor.first + 1, few_bits ? Dtype::int32 : Dtype::float32) != scales ||
            (tensor.has_zero_point && shape(tensor.first + 2, Dtype::int32) != scales)) {
            throw std::runtime_error("the scales or zero points do not fit the codes");
        }
        if (learned && shape(tensor.first + tensor.arrays - 1, Dtype::float32).size() != 1) {
            throw std::runtime_error("a codebook has one axis");
        }
        tensor.stored = tensor.format.text();
        tensor.bits = tensor.format.bits;
        tensor.bytes = bytes(tensor.first, tensor.arrays);
        places_[tensor.name] = tensors_.size();
        tensors_.push_back(std::move(tensor));
    }

    /// A number that is positive and finite as float32.
    static double positive(const Json& value) {
        const double number = value.number();
        if (!(number >= std::numeric_limits<float>::denorm_min() && number <= std::numeric_limits<float>::max())) {
            throw std::runtime_error("a scale is no positive float32");
        }
        return number;
    }

    static double unit(const Json::Table& fields, Format::Scale scale) {
        if ((scale == Format::Scale::e4m3) != (fields.count("unit") != 0)) {
            throw std::runtime_error("a unit goes with scales of e4m3, and only with them");
        }
        return scale == Format::Scale::e4m3 ? positive(fields.at("unit")) : 1;
    }

    void activation(const Json::Table& fields) {
        once(fields.at("tensor"));
        const Format format = format_of(fields.at("target"));
        if (format.kind != Format::Kind::integer || format.per != Format::Per::tensor || format.bits < 2 ||
            format.scale != Format::Scale::float32) {
            throw std::runtime_error("activations are integers of 2 bits or more with one scale a tensor");
        }
        fields.at("zero_point").whole(format.low(), format.high());
        steps_[fields.at("tensor").text()] = static_cast<float>(positive(fields.at("scale")));
    }

    void bias(const Json::Table& fields) {
        once(fields.at("parameter"));
        const auto weight = places_.find(fields.at("weight").text());
        const auto step = steps_.find(fields.at("tensor").text());
        if (weight == places_.end() || step == steps_.end()) {
            throw std::runtime_error("a bias needs its rounded weight and activation before it");
        }
        const Tensor& layer = tensors_[weight->second];
        if (layer.format.per == Format::Per::group) throw std::runtime_error("a bias has no scale beside groups");
        Tensor tensor{};
        tensor.name = fields.at("parameter").text();
        tensor.kind = Tensor::Kind::rounded_bias;
        tensor.first = take(1);
        tensor.arrays = 1;
        tensor.shape = shape(tensor.first, Dtype::int32);
        if (tensor.shape != Shape{layer.shape[layer.axis]}) throw std::runtime_error("a bias does not fit its weight");
        tensor.stored = "int32 of input times weight scale";
        tensor.bits = 32;
        tensor.bytes = bytes(tensor.first, 1);
        tensor.weight = weight->second;
        tensor.step = step->second;
        tensors_.push_back(std::move(tensor));
    }

    void assigned(const Json::Table& fields) {
        once(fields.at("parameter"));
        Tensor tensor{};
        tensor.name = fields.at("parameter").text();
        tensor.kind = Tensor::Kind::assigned;
        tensor.first = take(1);
        tensor.arrays = 1;
        const Dtype dtype = container_.entry(tensor.first).dtype;
        tensor.shape = container_.pieces()[tensor.first].shape;
        tensor.stored = name_of(dtype);
        tensor.bits = dtype == Dtype::boolean ? 1 : 8 * static_cast<int>(width_of(dtype));
        tensor.bytes = bytes(tensor.first, 1);
        tensors_.push_back(std::move(tensor));
    }

    const Container& container_;
    std::vector<Tensor> tensors_;
    std::size_t next_ = 0;
    std::ptrdiff_t stage_ = 0;
    std::set<std::pair<std::ptrdiff_t, std::string>> names_;
    std::set<std::string> folded_, factored_;
    std::map<std::string, std::uint64_t> masks_;
    std::map<std::string, std::size_t> places_;
    std::map<std::string, float> steps_;
};

/// The real number that the bits of a float16 stand for.
inline double half(std::uint16_t bits) {
    const int exponent = bits >> 10 & 31, fraction = bits & 1023;
    double value = std::ldexp(fraction + (exponent == 0 ? 0 : 1024), std::max(exponent, 1) - 25);
    if (exponent == 31) value = fraction == 0 ? std::numeric_limits<double>::infinity() : std::nan("");
    return (bits & 0x8000) != 0 ? -value : value;
}

/// Moves the first axis of values in C order to `axis` of `shape`, their shape in the end.
template <typename T>
std::vector<T> shaped(const std::vector<T>& matrix, const Shape& shape, std::size_t axis) {
    std::uint64_t outer = 1, inner = 1;
    for (std::size_t k = 0; k < axis; ++k) outer *= shape[k];
    for (std::size_t k = axis + 1; k < shape.size(); ++k) inner *= shape[k];
    const std::uint64_t rows = shape[axis];
    std::vector<T> moved(matrix.size());
    for (std::uint64_t row = 0; row < rows; ++row) {
        for (std::uint64_t k = 0; k < outer * inner; ++k) {
            moved[(k / inner * rows + row) * inner + k % inner] = matrix[row * outer * inner + k];
        }
    }
    return moved;
}

template <typename T>
std::vector<T> read_as(const Container& container, std::size_t place, int threads) {
    return std::get<std::vector<T>>(container.array(place, threads).values);
}

inline void check_codes(const std::vector<std::int32_t>& codes, const Format& format) {
    for (const std::int32_t code : codes) {
        if (!format.has(code)) throw std::runtime_error(std::to_string(code) + " is no code of " + format.text());
    }
}

/// The scales of a rounded weight, of which those of few bits are stored as integers.
inline std::vector<float> scales_of(const Container& container, const Tensor& tensor, int threads) {
    const std::size_t place = tensor.first + 1;
    const Format::Scale kind = tensor.format.scale;
    std::vector<float> scales;
    if (kind == Format::Scale::e8m0) {
        for (const std::int32_t code : read_as<std::int32_t>(container, place, threads)) {
            if (code < -126 || code > 127) throw std::runtime_error("a scale of e8m0 is no power of two in float32");
            scales.push_back(std::ldexp(1.0F, code));
        }
    } else if (kind == Format::Scale::e4m3) {
        Format levels;
        levels.kind = Format::Kind::floating;
        levels.exponent = 4;
        levels.mantissa = 3;
        for (const std::int32_t code : read_as<std::int32_t>(container, place, threads)) {
            if (code < 1 || code > levels.high()) throw std::runtime_error("a scale of e4m3 is not positive");
            scales.push_back(static_cast<float>(double{levels.level(code)} * tensor.unit));
        }
    } else {
        scales = read_as<float>(container, place, threads);
    }
    for (const float scale : scales) {
        if (!std::isfinite(scale) || !(scale > 0)) throw std::runtime_error("a scale is not finite and positive");
        if (kind == Format::Scale::one && scale != 1) throw std::runtime_error("a scale is not 1");
    }
    return scales;
}

/// The levels of a codebook: finite, rising, at least one and no more than its format says.
inline std::vector<float> codebook_values(const Container& container, const Tensor& tensor, int threads) {
    auto values = read_as<float>(container, tensor.first + tensor.arrays - 1, threads);
    bool rises = !values.empty() && values.size() <= static_cast<std::size_t>(tensor.format.values);
    for (std::size_t k = 0; k < values.size(); ++k) {
        rises = rises && std::isfinite(values[k]) && (k == 0 || values[k] > values[k - 1]);
    }
    if (!rises) throw std::runtime_error("the values of a codebook are too many, not finite, or do not rise");
    return values;
}

/// The zero point of each scale, which is 0 where none is stored.
inline std::vector<std::int32_t> zero_points_of(const Container& container, const Tensor& tensor, std::size_t count,
                                                int threads) {
    if (!tensor.has_zero_point) return std::vector<std::int32_t>(count);
    auto zero_points = read_as<std::int32_t>(container, tensor.first + 2, threads);
    const bool integers = tensor.format.kind == Format::Kind::integer;
    const std::int32_t low = integers ? tensor.format.low() : 0, high = integers ? tensor.format.high() : 0;
    for (const std::int32_t one : zero_points) {
        if (one < low || one > high) throw std::runtime_error(std::to_string(one) + " is no zero point of its format");
    }
    return zero_points;
}

/// Levels times scales, of formats that are no integers; codes have `columns` columns, scales `groups`.
inline std::vector<float> scaled_levels(const Container& container, const Tensor& tensor,
                                        const std::vector<std::int32_t>& codes, const std::vector<float>& scale,
                                        std::uint64_t columns, std::uint64_t groups, int threads) {
    const bool learned = tensor.format.kind == Format::Kind::codebook;
    const auto codebook = learned ? codebook_values(container, tensor, threads) : std::vector<float>();
    const std::uint64_t block = tensor.format.block(columns);
    std::vector<float> weights(codes.size());
    for (std::uint64_t k = 0; k < codes.size(); ++k) {
        const auto place = static_cast<std::size_t>(learned ? codes[k] : 0);
        if (learned && place >= codebook.size()) throw std::runtime_error("a code has no value in its codebook");
        const float level = learned ? codebook[place] : tensor.format.level(codes[k]);
        const std::uint64_t row = tensor.format.per == Format::Per::tensor ? 0 : k / columns;
        weights[k] = level * scale[row * groups + k % columns / block];
    }
    return weights;
}

inline std::vector<double> rounded_values(const Container& container, const Tensor& tensor, int threads) {
    const auto codes = read_as<std::int32_t>(container, tensor.first, threads);
    const auto scale = scales_of(container, tensor, threads);
    const auto zero_point = zero_points_of(container, tensor, scale.size(), threads);
    check_codes(codes, tensor.format);
    if (codes.empty()) return {};
    const Shape& matrix = container.pieces()[tensor.first].shape;
    const Shape& layout = container.pieces()[tensor.first + 1].shape;
    std::vector<float> weights;
    if (tensor.format.kind == Format::Kind::integer) {
        const Affine affine{{scale.data(), layout[0], layout[1]},
                            {zero_point.data(), layout[0], layout[1]},
                            static_cast<std::int64_t>(tensor.format.block(matrix[1]))};
        weights = dequantize(Matrix<const std::int32_t>(codes.data(), matrix[0], matrix[1]), affine, threads);
    } else {
        weights = scaled_levels(container, tensor, codes, scale, matrix[1], layout[1], threads);
    }
    const std::vector<float> own = shaped(weights, tensor.shape, tensor.axis);
    return {own.begin(), own.end()};
}

inline std::vector<double> bias_values(const Container& container, const Tensor& tensor, const Tensor& weight,
                                       int threads) {
    const auto codes = read_as<std::int32_t>(container, tensor.first, threads);
    const auto scale = scales_of(container, weight, threads);
    const std::size_t groups = weight.format.per == Format::Per::tensor ? 0 : 1;
    if (scale.empty() && !codes.empty()) throw std::runtime_error("its weight has no scale");
    std::vector<double> values;
    for (std::size_t row = 0; row < codes.size(); ++row) {
        const double product = double{tensor.step} * double{scale[row * groups]};
        const double bounded = std::clamp(product, double{std::numeric_limits<float>::min()},
                                          double{std::numeric_limits<float>::max()});
        const float value = static_cast<float>(codes[row]) * static_cast<float>(bounded);
        if (!std::isfinite(value)) throw std::runtime_error("a bias is no float32");
        values.push_back(double{value});
    }
    return values;
}

}  // namespace detail

/// Every parameter and buffer of the network, in the order of the file; of its arrays none is read.
///
/// Throws FileError where a decision is none, or needs arrays that the file does not have.
inline std::vector<Tensor> tensors(const Container& container) {
    return detail::reading(container.name() + ", decisions", [&] { return detail::Decisions(container).read(); });
}

/// The values of one of a container's `tensors`, which are the second argument.
///
/// Throws FileError where an array was changed, or holds what the decision does not allow.
inline std::vector<double> values_of(const Container& container, const std::vector<Tensor>& tensors, std::size_t which,
                                     int threads = 1) {
    const Tensor& tensor = tensors.at(which);
    return detail::reading(container.name() + ", " + tensor.name.substr(0, 80), [&]() -> std::vector<double> {
        if (tensor.kind == Tensor::Kind::rounded) return detail::rounded_values(container, tensor, threads);
        if (tensor.kind == Tensor::Kind::rounded_bias) {
            return detail::bias_values(container, tensor, tensors.at(tensor.weight), threads);
        }
        const Array array = container.array(tensor.first, threads);
        return std::visit(
            [&](const auto& all) {
                std::vector<double> values(all.begin(), all.end());
                if constexpr (std::is_same_v<std::decay_t<decltype(all)>, std::vector<std::uint16_t>>) {
                    if (array.dtype == Dtype::float16) {
                        std::transform(all.begin(), all.end(), values.begin(), detail::half);
                    }
                }
                return values;
            },
            array.values);
    });
}

}  // namespace whit
