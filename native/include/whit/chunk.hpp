// What both profiles of the codec share: bytes read with bounds, numbers of variable length, the order of codes.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include "whit/span.hpp"

namespace whit {

namespace detail {

using Bytes = std::vector<std::uint8_t>;

[[noreturn]] inline void damaged(const std::string& what) {
    throw std::runtime_error("The encoded codes are damaged: " + what + ".");
}

/// Reads numbers off the front of bytes, and nothing behind them.
class Reader {
public:
    explicit Reader(Span<const std::uint8_t> bytes) : bytes_(bytes) {}

    std::size_t left() const { return bytes_.size() - at_; }

    std::uint32_t byte() {
        if (left() == 0) damaged("they are cut short");
        return bytes_[at_++];
    }

    std::uint32_t fixed() {
        std::uint32_t value = 0;
        for (int shift = 0; shift < 32; shift += 8) value |= byte() << shift;
        return value;
    }

    std::uint32_t variable() {
        std::uint64_t value = 0;
        for (int shift = 0; shift < 35; shift += 7) {
            const std::uint64_t next = byte();
            value |= (next & 127) << shift;
            if (next < 128) {
                if (value > 0xffffffffu) break;
                return static_cast<std::uint32_t>(value);
            }
        }
        damaged("a number does not fit 32 bits");
    }

    Span<const std::uint8_t> take(std::size_t size) {
        if (size > left()) damaged("they are cut short");
        at_ += size;
        return {bytes_.data() + (at_ - size), size};
    }

private:
    Span<const std::uint8_t> bytes_;
    std::size_t at_ = 0;
};

inline void put_variable(Bytes& bytes, std::uint32_t value) {
    for (; value > 127; value >>= 7) bytes.push_back(static_cast<std::uint8_t>(value | 128));
    bytes.push_back(static_cast<std::uint8_t>(value));
}

inline std::uint32_t zigzag(std::int32_t value) {
    return value < 0 ? ~(static_cast<std::uint32_t>(value) << 1) : static_cast<std::uint32_t>(value) << 1;
}

inline std::int32_t unzigzag(std::uint32_t value) {
    return (value & 1) != 0 ? -static_cast<std::int32_t>(value >> 1) - 1 : static_cast<std::int32_t>(value >> 1);
}

/// Codes of some columns, column after column.
inline std::vector<std::int32_t> transposed(Matrix<const std::int32_t> codes, std::size_t first, std::size_t last) {
    std::vector<std::int32_t> symbols(codes.rows() * (last - first));
    for (std::size_t row = 0; row < codes.rows(); ++row) {
        for (std::size_t column = first; column < last; ++column) {
            symbols[(column - first) * codes.rows() + row] = codes.row(row)[column];
        }
    }
    return symbols;
}

struct Extent {
    std::int32_t least;
    std::int32_t most;
};

/// The least and the most of some codes, of 0 and 0 if there are none; a loop that compilers turn into vectors.
inline Extent extent_of(Span<const std::int32_t> codes) {
    if (codes.size() == 0) return {0, 0};
    Extent extent{codes[0], codes[0]};
    for (const std::int32_t code : codes) {
        extent.least = std::min(extent.least, code);
        extent.most = std::max(extent.most, code);
    }
    return extent;
}

/// The commonest code, and of those the smallest; of large spans a sample decides.
inline std::int32_t centre_of(Span<const std::int32_t> symbols) {
    std::vector<std::int32_t> sample;
    const std::size_t step = symbols.size() / 4096 + 1;
    for (std::size_t i = 0; i < symbols.size(); i += step) sample.push_back(symbols[i]);
    const Extent extent = extent_of(sample);
    if (extent.most - extent.least < 4096) {
        std::vector<std::uint32_t> counts(static_cast<std::size_t>(extent.most - extent.least) + 1);
        for (const std::int32_t symbol : sample) ++counts[static_cast<std::size_t>(symbol - extent.least)];
        return extent.least + static_cast<std::int32_t>(std::max_element(counts.begin(), counts.end()) - counts.begin());
    }
    std::map<std::int32_t, std::size_t> counts;
    for (const std::int32_t symbol : sample) ++counts[symbol];
    const auto common = std::max_element(counts.begin(), counts.end(),
                                         [](const auto& a, const auto& b) { return a.second < b.second; });
    return common->first;
}

inline std::int32_t put_centre(Span<const std::int32_t> symbols, Bytes& bytes) {
    const std::int32_t centre = centre_of(symbols);
    put_variable(bytes, zigzag(centre));
    return centre;
}

inline std::int32_t take_centre(Reader& reader) {
    const std::uint32_t centre = reader.variable();
    if (centre > 1u << 25) damaged("a centre is out of range");
    return unzigzag(centre);
}

}  // namespace detail
}  // namespace whit
