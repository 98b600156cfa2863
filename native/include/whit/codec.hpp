// Integer codes as few bytes: the symbol model behind a range coder, in chunks that stand alone.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "whit/parallel.hpp"
#include "whit/range_coder.hpp"
#include "whit/span.hpp"
#include "whit/symbol_model.hpp"

namespace whit {

namespace detail {

class Writer {
public:
    bool bit(const BitPair& pair, bool outcome) {
        encoder_.encode(outcome, pair.probability());
        pair.update(outcome);
        return outcome;
    }
    std::vector<std::uint8_t> finish() { return encoder_.finish(); }

private:
    RangeEncoder encoder_;
};

class Reader {
public:
    explicit Reader(Span<const std::uint8_t> bytes) : decoder_(bytes) {}
    bool bit(const BitPair& pair, bool) {
        const bool outcome = decoder_.decode(pair.probability());
        pair.update(outcome);
        return outcome;
    }
    void finish() const { decoder_.finish(); }

private:
    RangeDecoder decoder_;
};

/// Follows the scan over some rows of a matrix: `visit(row, column)` for every place, column by column.
template <typename Visit>
void scan(std::size_t first, std::size_t end, std::size_t columns, const Visit& visit) {
    for (std::size_t column = 0; column < columns; ++column) {
        for (std::size_t row = first; row < end; ++row) visit(row, column);
    }
}

}  // namespace detail

/// Rows in a chunk: as many as hold about a million codes, or one. Follows from the shape, so it is not stored.
inline std::size_t chunk_rows(std::size_t rows, std::size_t columns) {
    constexpr std::size_t codes = std::size_t{1} << 20;
    return std::max<std::size_t>(1, std::min(rows, codes / std::max<std::size_t>(1, columns)));
}

inline std::size_t chunk_count(std::size_t rows, std::size_t columns) {
    if (rows == 0 || columns == 0) return 0;
    const std::size_t size = chunk_rows(rows, columns);
    return (rows + size - 1) / size;
}

/// No byte can stand for more codes than this: a decision costs at least log2(65536 / 65465) bits.
constexpr std::size_t most_codes_per_byte = 6000;

/// Codes a matrix of integers from -largest_code to largest_code.
///
/// One chunk is its bytes. Several are preceded by the size of each, 32 bits little-endian. `decode_codes` is the exact
/// inverse, given the shape; the bytes do not depend on `threads`.
inline std::vector<std::uint8_t> encode_codes(Matrix<const std::int32_t> codes, int threads) {
    for (const std::int32_t code : codes.flat()) {
        if (code < -largest_code || code > largest_code) {
            throw std::invalid_argument("The code " + std::to_string(code) + " is beyond +-" +
                                        std::to_string(largest_code) + ", the largest that can be coded.");
        }
    }
    const std::size_t size = chunk_rows(codes.rows(), codes.columns());
    std::vector<std::vector<std::uint8_t>> chunks(chunk_count(codes.rows(), codes.columns()));
    for_each_row(chunks.size(), threads, [&](std::size_t chunk) {
        const std::size_t first = chunk * size, end = std::min(codes.rows(), first + size);
        SymbolModel model(end - first);
        detail::Writer writer;
        detail::scan(first, end, codes.columns(),
                     [&](std::size_t row, std::size_t column) { model.code(writer, codes.row(row)[column]); });
        chunks[chunk] = writer.finish();
    });
    std::vector<std::uint8_t> bytes;
    if (chunks.size() > 1) {
        for (const auto& chunk : chunks) {
            for (int shift = 0; shift < 32; shift += 8) bytes.push_back(static_cast<std::uint8_t>(chunk.size() >> shift));
        }
    }
    for (const auto& chunk : chunks) bytes.insert(bytes.end(), chunk.begin(), chunk.end());
    return bytes;
}

namespace detail {

/// Where each chunk lies; together they are all the bytes.
inline std::vector<Span<const std::uint8_t>> chunks_of(Span<const std::uint8_t> bytes, std::size_t count) {
    std::size_t place = count > 1 ? 4 * count : 0;
    if (place > bytes.size()) throw std::invalid_argument("The coded bytes end within the sizes of their chunks.");
    std::vector<Span<const std::uint8_t>> chunks;
    for (std::size_t chunk = 0; chunk < count; ++chunk) {
        std::size_t size = bytes.size() - place;
        if (count > 1) {
            size = 0;
            for (std::size_t byte = 0; byte < 4; ++byte) size |= std::size_t{bytes[4 * chunk + byte]} << (8 * byte);
        }
        if (size > bytes.size() - place) throw std::invalid_argument("The coded bytes end within a chunk.");
        chunks.emplace_back(bytes.data() + place, size);
        place += size;
    }
    if (place != bytes.size()) throw std::invalid_argument("The coded bytes go on after the last chunk.");
    return chunks;
}

}  // namespace detail

/// The `rows * columns` codes that `encode_codes` coded; checked before anything is allocated.
inline std::vector<std::int32_t> decode_codes(Span<const std::uint8_t> bytes, std::size_t rows, std::size_t columns,
                                              int threads) {
    if (columns != 0 && rows > most_codes_per_byte * (bytes.size() + 1) / columns) {
        throw std::invalid_argument(std::to_string(bytes.size()) + " coded bytes cannot hold " + std::to_string(rows) +
                                    " x " + std::to_string(columns) + " codes.");
    }
    const auto chunks = detail::chunks_of(bytes, chunk_count(rows, columns));
    const std::size_t size = chunk_rows(rows, columns);
    std::vector<std::int32_t> codes(rows * columns);
    for_each_row(chunks.size(), threads, [&](std::size_t chunk) {
        const std::size_t first = chunk * size, end = std::min(rows, first + size);
        SymbolModel model(end - first);
        detail::Reader reader(chunks[chunk]);
        detail::scan(first, end, columns, [&](std::size_t row, std::size_t column) {
            codes[row * columns + column] = model.code(reader, 0);
        });
        reader.finish();
    });
    return codes;
}

/// Bits that `encode_codes` takes, but for the few bytes that end a chunk.
inline double code_bits(Matrix<const std::int32_t> codes) {
    const std::size_t size = chunk_rows(codes.rows(), codes.columns());
    BitCounter counter;
    for (std::size_t first = 0; first < codes.rows() && codes.columns() > 0; first += size) {
        const std::size_t end = std::min(codes.rows(), first + size);
        SymbolModel model(end - first);
        detail::scan(first, end, codes.columns(),
                     [&](std::size_t row, std::size_t column) { model.code(counter, codes.row(row)[column]); });
    }
    return counter.bits();
}

}  // namespace whit
