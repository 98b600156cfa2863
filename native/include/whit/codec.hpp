// Matrices of integer codes as few bytes, and back.
//
//     byte 0        profile: 1 small, 2 fast
//     4 bytes each  sizes of the chunks but for the last, little-endian
//     ...           the chunks
//
// A chunk is decoded alone. It is a run of columns, as many as make 2^18 codes and at least one, told column after
// column; in `fast`, if there are fewer than 16 rows or more than 2^18, a run of 2^18 codes in C order. The number of
// chunks follows from the shape. A chunk begins with its centre, the code that stands for 0, as a zigzag variable-length
// integer (7 bits a byte, lowest first). What follows is described at the profile. An empty matrix is the profile's
// byte alone.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "whit/chunk.hpp"
#include "whit/codec_fast.hpp"
#include "whit/codec_small.hpp"
#include "whit/parallel.hpp"
#include "whit/span.hpp"
#include "whit/symbol_model.hpp"

namespace whit {

/// How codes are stored: in the fewest bytes, or so that they are decoded several times faster.
enum class Profile : std::uint8_t { small = 1, fast = 2 };

namespace detail {

/// The chunks of a shape, each of `size` columns or, in runs, codes, the last shorter.
struct Chunks {
    static constexpr std::size_t most = std::size_t{1} << 18;

    bool runs;
    std::size_t all;
    std::size_t size;

    Chunks(Profile profile, std::size_t rows, std::size_t columns)
        : runs(profile == Profile::fast && (rows < Strip::fewest_rows || rows > most)), all(columns), size(most) {
        if (runs) {
            all = rows * columns;
        } else {
            size = std::max<std::size_t>(size / std::max<std::size_t>(rows, 1), 1);
        }
        if (rows == 0) all = 0;
    }

    std::size_t count() const { return all / size + (all % size != 0); }
    std::size_t first(std::size_t chunk) const { return chunk * size; }
    std::size_t last(std::size_t chunk) const { return std::min(all, (chunk + 1) * size); }
};

inline void check_reach(Span<const std::int32_t> codes) {
    // Codes in range, moved up by 2^23, have no bit from the 24th on, but for 2^23 itself, which the slow loop allows.
    std::uint32_t bits = 0;
    for (const std::int32_t code : codes) bits |= static_cast<std::uint32_t>(code) + largest_symbol / 2;
    if (bits < static_cast<std::uint32_t>(largest_symbol)) return;
    for (const std::int32_t code : codes) {
        if (code < -largest_symbol / 2 || code > largest_symbol / 2) {
            throw std::invalid_argument("A code is " + std::to_string(code) + ", but codes of at most " +
                                        std::to_string(largest_symbol / 2) + " either way can be encoded.");
        }
    }
}

/// The chunk of a matrix for the profile `fast`, and the place of its first code.
inline std::pair<Strip, std::size_t> strip_of(const Chunks& chunks, std::size_t chunk, std::size_t rows,
                                              std::size_t columns) {
    const std::size_t first = chunks.first(chunk), last = chunks.last(chunk);
    return {chunks.runs ? Strip::of_run(last - first) : Strip::of_columns(rows, first, last, columns), first};
}

inline Bytes encode_chunk(Matrix<const std::int32_t> codes, Profile profile, const Chunks& chunks, std::size_t chunk) {
    Bytes bytes;
    if (profile == Profile::fast) {
        const auto [strip, at] = strip_of(chunks, chunk, codes.rows(), codes.columns());
        encode_fast(strip, codes.flat().data() + at, bytes);
    } else {
        const Columns columns{codes.rows(), chunks.first(chunk), chunks.last(chunk), codes.columns()};
        encode_small(transposed(codes, columns.first, columns.last), columns, bytes);
    }
    return bytes;
}

inline void decode_chunk(Reader reader, Profile profile, const Chunks& chunks, std::size_t chunk,
                         Matrix<std::int32_t> codes) {
    if (profile == Profile::fast) {
        const auto [strip, at] = strip_of(chunks, chunk, codes.rows(), codes.columns());
        return decode_fast(reader, strip, codes.flat().data() + at);
    }
    const Columns columns{codes.rows(), chunks.first(chunk), chunks.last(chunk), codes.columns()};
    const std::vector<std::int32_t> symbols = decode_small(reader, columns);
    for (std::size_t row = 0; row < columns.rows; ++row) {
        for (std::size_t column = columns.first; column < columns.last; ++column) {
            codes.row(row)[column] = symbols[(column - columns.first) * columns.rows + row];
        }
    }
}

/// Whether bytes can hold a shape, which is neither empty: no profile tells more codes in one byte.
inline bool plausible(std::size_t bytes, std::size_t rows, std::size_t columns) {
    constexpr std::size_t most_from_one = 1 << 15;
    const std::size_t most = bytes < (std::size_t{1} << 40) ? (bytes + 8) * most_from_one : bytes;
    return columns <= most / rows;
}

}  // namespace detail

/// The bytes of a matrix of codes; the same for every number of threads and on every machine.
///
/// Throws std::invalid_argument where two codes are 2^24 apart or more, or a code is beyond +-2^24.
inline std::vector<std::uint8_t> encode(Matrix<const std::int32_t> codes, Profile profile, int threads) {
    detail::check_reach(codes.flat());
    const detail::Chunks chunks(profile, codes.rows(), codes.columns());
    std::vector<detail::Bytes> encoded(chunks.count());
    for_each_row(encoded.size(), threads, [&](std::size_t i) {
        encoded[i] = detail::encode_chunk(codes, profile, chunks, i);
    });
    std::vector<std::uint8_t> bytes{static_cast<std::uint8_t>(profile)};
    for (std::size_t i = 0; i + 1 < encoded.size(); ++i) {
        for (int shift = 0; shift < 32; shift += 8) {
            bytes.push_back(static_cast<std::uint8_t>(encoded[i].size() >> shift));
        }
    }
    for (const detail::Bytes& chunk : encoded) bytes.insert(bytes.end(), chunk.begin(), chunk.end());
    return bytes;
}

/// The `rows * columns` codes, in C order, that `encode` made bytes of.
///
/// Allocates for the declared shape only, and only if the bytes can hold it. Bytes that `encode` did not write are
/// a std::runtime_error, or some matrix of the declared shape.
inline std::vector<std::int32_t> decode(Span<const std::uint8_t> bytes, std::size_t rows, std::size_t columns,
                                        int threads) {
    detail::Reader reader(bytes);
    const std::uint32_t which = reader.byte();
    if (which != 1 && which != 2) detail::damaged("there is no profile " + std::to_string(which));
    if (rows == 0 || columns == 0) {
        if (reader.left() != 0) detail::damaged("no codes take " + std::to_string(reader.left()) + " bytes");
        return {};
    }
    if (!detail::plausible(bytes.size(), rows, columns)) detail::damaged("they are too few for the declared shape");
    const auto profile = static_cast<Profile>(which);
    const detail::Chunks chunks(profile, rows, columns);
    if (chunks.count() - 1 > reader.left() / 4) detail::damaged("they are cut short");
    std::vector<std::size_t> sizes;
    for (std::size_t i = 0; i + 1 < chunks.count(); ++i) sizes.push_back(reader.fixed());
    std::vector<Span<const std::uint8_t>> encoded;
    for (const std::size_t size : sizes) encoded.push_back(reader.take(size));
    encoded.push_back(reader.take(reader.left()));

    std::vector<std::int32_t> codes(rows * columns);
    for_each_row(encoded.size(), threads, [&](std::size_t i) {
        const Matrix<std::int32_t> matrix(codes.data(), rows, columns);
        detail::decode_chunk(detail::Reader(encoded[i]), profile, chunks, i, matrix);
    });
    return codes;
}

/// What the profile `small` would take for a matrix, in bits, without coding it.
inline double model_bits(Matrix<const std::int32_t> codes) {
    const detail::Chunks chunks(Profile::small, codes.rows(), codes.columns());
    double sum = 0;
    for (std::size_t i = 0; i < chunks.count(); ++i) {
        const detail::Columns columns{codes.rows(), chunks.first(i), chunks.last(i), codes.columns()};
        sum += detail::small_bits(detail::transposed(codes, columns.first, columns.last), columns);
    }
    return sum;
}

/// What a step up from each code would cost in bits in its place, and a step up to it from the code below: two
/// matrices, one behind the other. A code beside it costs what the model of the profile `small` says.
inline std::vector<float> bit_slopes(Matrix<const std::int32_t> codes) {
    const std::size_t columns = codes.columns();
    const detail::Chunks chunks(Profile::small, codes.rows(), columns);
    std::vector<float> slopes(2 * codes.rows() * columns);
    float* below = slopes.data() + codes.rows() * columns;
    for (std::size_t i = 0; i < chunks.count(); ++i) {
        const detail::Columns chunk{codes.rows(), chunks.first(i), chunks.last(i), columns};
        const auto visit = [&](std::size_t place, std::int32_t symbol, const Context& context,
                               const SymbolModel& model) {
            const std::size_t target = (place % chunk.rows) * columns + chunk.first + place / chunk.rows;
            const float own = model.bits(symbol, context);
            slopes[target] = model.bits(symbol + 1, context) - own;
            below[target] = own - model.bits(symbol - 1, context);
        };
        detail::for_each_small(detail::transposed(codes, chunk.first, chunk.last), chunk, visit);
    }
    return slopes;
}

}  // namespace whit
