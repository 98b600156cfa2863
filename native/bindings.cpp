// The Python face of the core, and the only file that knows Python.
//
// An argument that is not the kind of array asked for is a TypeError here; what the
// core finds wrong with the values (std::invalid_argument) becomes a ValueError.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "whit/bit_packing.hpp"
#include "whit/byte_model.hpp"
#include "whit/codec.hpp"
#include "whit/floats.hpp"
#include "whit/learned_step.hpp"
#include "whit/optimal_brain.hpp"
#include "whit/prune.hpp"
#include "whit/quantize.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

template <typename T, std::size_t Axes>
using Array = nb::ndarray<const T, nb::ndim<Axes>, nb::c_contig, nb::device::cpu>;

template <typename T>
const char* dtype_name();
template <>
const char* dtype_name<float>() { return "float32"; }
template <>
const char* dtype_name<double>() { return "float64"; }
template <>
const char* dtype_name<std::int32_t>() { return "int32"; }
template <>
const char* dtype_name<std::uint8_t>() { return "uint8"; }

std::string describe(nb::handle given) {
    const auto text = [](nb::handle value) { return std::string(nb::str(value).c_str()); };
    if (nb::hasattr(given, "dtype") && nb::hasattr(given, "shape")) {
        return text(given.attr("dtype")) + " of shape " + text(given.attr("shape"));
    }
    return "of type " + text(given.type().attr("__name__"));
}

// Never converts: a silent copy would hide a float64 that was meant to be exact.
template <typename T, std::size_t Axes>
Array<T, Axes> array(nb::handle given, const char* name) {
    Array<T, Axes> result;
    if (nb::try_cast(given, result, false)) return result;
    const std::string dtype = dtype_name<T>();
    const std::string message = std::string(name) + " is " + describe(given) + ", but a C-contiguous " + dtype +
                                " array with " + std::to_string(Axes) + (Axes == 1 ? " axis" : " axes") +
                                " is needed; numpy.ascontiguousarray(" + name + ", dtype=numpy." + dtype +
                                ") sets dtype and layout.";
    throw nb::type_error(message.c_str());
}

template <typename T>
whit::Span<const T> span(const Array<T, 1>& a) { return {a.data(), a.shape(0)}; }

template <typename T>
whit::Matrix<const T> matrix(const Array<T, 2>& a) { return {a.data(), a.shape(0), a.shape(1)}; }

// Hands the vector's memory to NumPy, which frees it with the last array that looks at it.
template <typename T, typename U>
nb::object numpy(std::vector<U> values, std::initializer_list<std::size_t> shape) {
    static_assert(sizeof(T) == sizeof(U));
    auto* kept = new std::vector<U>(std::move(values));
    nb::capsule owner(kept, [](void* p) noexcept { delete static_cast<std::vector<U>*>(p); });
    return nb::cast(nb::ndarray<nb::numpy, T>(kept->data(), shape, owner));
}

// Memory for the core to fill, NumPy's from then on.
class Filled {
public:
    explicit Filled(std::size_t size) : data_(new float[size]), size_(size) {}

    whit::Span<float> span() const { return {data_.get(), size_}; }

    nb::object numpy() {
        float* kept = data_.release();
        nb::capsule owner(kept, [](void* p) noexcept { delete[] static_cast<float*>(p); });
        return nb::cast(nb::ndarray<nb::numpy, float>(kept, {size_}, owner));
    }

private:
    std::unique_ptr<float[]> data_;
    std::size_t size_;
};

template <typename Work>
auto without_gil(const Work& work) {
    const nb::gil_scoped_release release;
    return work();
}

nb::object quantize(nb::handle weights, nb::handle scale, nb::handle zero_point, std::int64_t group_size,
                    std::int32_t low, std::int32_t high, int threads) {
    const auto w = array<float, 2>(weights, "weights");
    const auto s = array<float, 2>(scale, "scale");
    const auto z = array<std::int32_t, 2>(zero_point, "zero_point");
    auto codes = without_gil([&] {
        return whit::quantize(matrix(w), {matrix(s), matrix(z), group_size}, low, high, threads);
    });
    return numpy<std::int32_t>(std::move(codes), {w.shape(0), w.shape(1)});
}

nb::object dequantize(nb::handle codes, nb::handle scale, nb::handle zero_point, std::int64_t group_size,
                      int threads) {
    const auto c = array<std::int32_t, 2>(codes, "codes");
    const auto s = array<float, 2>(scale, "scale");
    const auto z = array<std::int32_t, 2>(zero_point, "zero_point");
    auto weights = without_gil([&] {
        return whit::dequantize(matrix(c), {matrix(s), matrix(z), group_size}, threads);
    });
    return numpy<float>(std::move(weights), {c.shape(0), c.shape(1)});
}

nb::object prune(nb::handle scores, std::int64_t count) {
    const auto s = array<float, 1>(scores, "scores");
    auto mask = without_gil([&] { return whit::prune(span(s), count); });
    return numpy<bool>(std::move(mask), {s.shape(0)});
}

// Hessians come as (columns, columns) or (groups, columns, columns); the core stacks groups.
whit::Matrix<const double> stacked(const Array<double, 3>& a) {
    return {a.data(), a.shape(0) * a.shape(1), a.shape(2)};
}

nb::object optimal_brain(nb::handle weights, nb::handle hessian, nb::handle row_weight, nb::handle scale,
                         nb::handle zero_point, std::int64_t group_size, std::int32_t low, std::int32_t high,
                         double rate, double damping, nb::handle mask, int sweeps, int threads) {
    const auto w = array<float, 2>(weights, "weights");
    const auto h = array<double, 3>(hessian, "hessian");
    const auto r = array<double, 1>(row_weight, "row_weight");
    const auto s = array<float, 2>(scale, "scale");
    const auto z = array<std::int32_t, 2>(zero_point, "zero_point");
    Array<std::uint8_t, 2> kept;
    whit::Matrix<const std::uint8_t> chosen{nullptr, 0, 0};
    if (!mask.is_none()) chosen = matrix(kept = array<std::uint8_t, 2>(mask, "mask"));
    whit::Rounding found = without_gil([&] {
        return whit::optimal_brain(matrix(w), {stacked(h), span(r), damping}, {matrix(s), matrix(z), group_size}, low,
                                   high, rate, sweeps, threads, chosen);
    });
    auto codes = numpy<std::int32_t>(std::move(found.codes), {w.shape(0), w.shape(1)});
    return nb::make_tuple(codes, found.loss, found.bits);
}

nb::object update_params(nb::handle weights, nb::handle mask, nb::handle hessian, double damping, int threads) {
    const auto w = array<float, 2>(weights, "weights");
    const auto m = array<std::uint8_t, 2>(mask, "mask");
    const auto h = array<double, 3>(hessian, "hessian");
    auto updated = without_gil(
        [&] { return whit::update_params(matrix(w), matrix(m), stacked(h), damping, threads); });
    return numpy<float>(std::move(updated), {w.shape(0), w.shape(1)});
}

nb::object round_values(nb::handle x, float scale, std::int32_t low, std::int32_t high, int threads) {
    const auto values = array<float, 1>(x, "x");
    Filled rounded(values.shape(0));
    without_gil([&] { whit::round_values(span(values), {scale, low, high}, rounded.span(), threads); });
    return rounded.numpy();
}

nb::object round_gradients(nb::handle x, nb::handle by_y, float scale, std::int32_t low, std::int32_t high,
                           int threads) {
    const auto values = array<float, 1>(x, "x");
    const auto given = array<float, 1>(by_y, "by_y");
    if (given.shape(0) != values.shape(0)) {
        throw std::invalid_argument("by_y has " + std::to_string(given.shape(0)) + " values, but x has " +
                                    std::to_string(values.shape(0)) + "; each value has one derivative.");
    }
    Filled passed(values.shape(0));
    const auto found = without_gil([&] {
        return whit::round_gradients(span(values), span(given), {scale, low, high}, passed.span(), threads);
    });
    return nb::make_tuple(passed.numpy(), found.scale, found.clamped);
}

nb::object pack_bits(nb::handle codes, int bits, std::int32_t low) {
    const auto c = array<std::int32_t, 1>(codes, "codes");
    auto packed = without_gil([&] { return whit::pack_bits(span(c), bits, low); });
    const std::size_t size = packed.size();
    return numpy<std::uint8_t>(std::move(packed), {size});
}

nb::object unpack_bits(nb::handle packed, std::int64_t count, int bits, std::int32_t low) {
    const auto p = array<std::uint8_t, 1>(packed, "packed");
    auto codes = without_gil([&] { return whit::unpack_bits(span(p), count, bits, low); });
    const std::size_t size = codes.size();
    return numpy<std::int32_t>(std::move(codes), {size});
}

whit::Profile profile_of(const std::string& name) {
    if (name == "small") return whit::Profile::small;
    if (name == "fast") return whit::Profile::fast;
    throw std::invalid_argument("profile is '" + name + "', but 'small' or 'fast' is needed.");
}

nb::object encode(nb::handle codes, const std::string& profile, int threads) {
    const auto c = array<std::int32_t, 2>(codes, "codes");
    const whit::Profile chosen = profile_of(profile);
    auto bytes = without_gil([&] { return whit::encode(matrix(c), chosen, threads); });
    const std::size_t size = bytes.size();
    return numpy<std::uint8_t>(std::move(bytes), {size});
}

// What the core finds damaged (std::runtime_error) becomes a ValueError too.
template <typename Work>
auto damage_is_a_value_error(const Work& work) {
    try {
        return without_gil(work);
    } catch (const std::runtime_error& error) {
        throw nb::value_error(error.what());
    }
}

nb::object decode(nb::handle encoded, std::size_t rows, std::size_t columns, int threads) {
    const auto e = array<std::uint8_t, 1>(encoded, "encoded");
    auto codes = damage_is_a_value_error([&] { return whit::decode(span(e), rows, columns, threads); });
    return numpy<std::int32_t>(std::move(codes), {rows, columns});
}

nb::object encode_floats(nb::handle values) {
    const auto v = array<float, 1>(values, "values");
    auto bytes = without_gil([&] { return whit::encode_floats(span(v)); });
    const std::size_t size = bytes.size();
    return numpy<std::uint8_t>(std::move(bytes), {size});
}

nb::object decode_floats(nb::handle encoded, std::size_t count) {
    const auto e = array<std::uint8_t, 1>(encoded, "encoded");
    return numpy<float>(damage_is_a_value_error([&] { return whit::decode_floats(span(e), count); }), {count});
}

nb::object encode_bytes(nb::handle plain) {
    const auto p = array<std::uint8_t, 1>(plain, "plain");
    auto encoded = without_gil([&] { return whit::encode_bytes(span(p)); });
    const std::size_t size = encoded.size();
    return numpy<std::uint8_t>(std::move(encoded), {size});
}

nb::object decode_bytes(nb::handle encoded, std::size_t size) {
    const auto e = array<std::uint8_t, 1>(encoded, "encoded");
    return numpy<std::uint8_t>(damage_is_a_value_error([&] { return whit::decode_bytes(span(e), size); }), {size});
}

double model_bits(nb::handle codes) {
    const auto c = array<std::int32_t, 2>(codes, "codes");
    return without_gil([&] { return whit::model_bits(matrix(c)); });
}

nb::object bit_slopes(nb::handle codes) {
    const auto c = array<std::int32_t, 2>(codes, "codes");
    auto slopes = without_gil([&] { return whit::bit_slopes(matrix(c)); });
    return numpy<float>(std::move(slopes), {2, c.shape(0), c.shape(1)});
}

}  // namespace

NB_MODULE(_core, m) {
    m.doc() = "The native core of whit: plain functions on C-contiguous NumPy arrays.";
    m.def("quantize", &quantize, "weights"_a, "scale"_a, "zero_point"_a, "group_size"_a, "low"_a, "high"_a,
          "threads"_a = 1, "Codes: clamp(round_half_to_even(weights / scale) + zero_point, low, high).");
    m.def("dequantize", &dequantize, "codes"_a, "scale"_a, "zero_point"_a, "group_size"_a, "threads"_a = 1,
          "Weights: (codes - zero_point) * scale.");
    m.def("prune", &prune, "scores"_a, "count"_a,
          "A mask that is False at the `count` smallest scores; of equal scores the first goes first.");
    m.def("optimal_brain", &optimal_brain, "weights"_a, "hessian"_a, "row_weight"_a, "scale"_a, "zero_point"_a,
          "group_size"_a, "low"_a, "high"_a, "rate"_a, "damping"_a, "mask"_a = nb::none(), "sweeps"_a = 1,
          "threads"_a = 1,
          "Codes that minimise row_weight * error^T hessian error + rate * bits, and both sums.");
    m.def("update_params", &update_params, "weights"_a, "mask"_a, "hessian"_a, "damping"_a, "threads"_a = 1,
          "Surviving weights that make up best for those that the mask removes.");
    m.def("round_values", &round_values, "x"_a, "scale"_a, "low"_a, "high"_a, "threads"_a = 1,
          "Values on a grid: clamp(round_half_to_even(x / scale), low, high) * scale.");
    m.def("round_gradients", &round_gradients, "x"_a, "by_y"_a, "scale"_a, "low"_a, "high"_a, "threads"_a = 1,
          "Derivatives by x, by the scale and by what was clamped, from those by the rounded values.");
    m.def("pack_bits", &pack_bits, "codes"_a, "bits"_a, "low"_a,
          "Stores codes - low as fields of `bits` bits, least significant bit first.");
    m.def("unpack_bits", &unpack_bits, "packed"_a, "count"_a, "bits"_a, "low"_a,
          "The exact inverse of pack_bits.");
    m.def("encode", &encode, "codes"_a, "profile"_a = "small", "threads"_a = 1,
          "A matrix of codes as few bytes.");
    m.def("decode", &decode, "encoded"_a, "rows"_a, "columns"_a, "threads"_a = 1,
          "The exact inverse of encode.");
    m.def("encode_floats", &encode_floats, "values"_a, "float32 values as fewer bytes, bit for bit.");
    m.def("decode_floats", &decode_floats, "encoded"_a, "count"_a, "The exact inverse of encode_floats.");
    m.def("encode_bytes", &encode_bytes, "plain"_a, "Bytes that repeat themselves as fewer bytes.");
    m.def("decode_bytes", &decode_bytes, "encoded"_a, "size"_a, "The exact inverse of encode_bytes.");
    m.def("model_bits", &model_bits, "codes"_a, "What the profile small would take, in bits.");
    m.def("bit_slopes", &bit_slopes, "codes"_a, "Bits that a step up from each code, and up to it, would cost.");
}
