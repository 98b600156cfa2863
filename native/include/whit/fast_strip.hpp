// Where the codes of a chunk of the profile `fast` lie, and the columns as which they are coded.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "whit/fast_model.hpp"
#include "whit/lanes.hpp"

namespace whit::detail {

/// Whole columns of a matrix; or, where there are too few rows to be told eight at a time, or too many for one chunk, a run
/// of codes in C order, cut into 64 rows, with what is left over as one more, shorter column.
struct Strip {
    static constexpr std::size_t fewest_rows = 16;

    std::size_t rows;
    std::size_t columns;
    std::size_t pitch;     ///< From one row to the next in the matrix.
    std::size_t rest = 0;  ///< Codes of the shorter column.
    std::size_t first = 0;

    static Strip of_columns(std::size_t rows, std::size_t first, std::size_t last, std::size_t all) {
        return {rows, last - first, all, 0, first};
    }

    static Strip of_run(std::size_t codes) {
        constexpr std::size_t rows = 64;
        return {rows, codes / rows, codes / rows, codes % rows};
    }

    std::size_t codes() const { return rows * columns + rest; }
    std::size_t all_columns() const { return columns + (rest > 0 ? 1 : 0); }
    std::size_t height(std::size_t column) const { return column < columns ? rows : rest; }
    /// Columns are padded to whole blocks.
    std::size_t padded() const { return (rows + FastModel::block - 1) / FastModel::block * FastModel::block; }

    /// Where the code of a row and a column is, from the first one's place.
    std::size_t place(std::size_t row, std::size_t column) const {
        return column < columns ? row * pitch + column : rows * columns + row;
    }

    /// Calls `visit(place in the matrix)` for every `step`-th code, row after row.
    template <typename Visit>
    void in_order(const Visit& visit, std::size_t step = 1) const {
        const std::size_t whole = rows * columns;
        std::size_t code = 0;
        for (std::size_t row = 0, column = 0; code < whole; code += step) {
            visit(row * pitch + column);
            for (column += step; column >= columns; column -= columns) ++row;
        }
        for (; code < codes(); code += step) visit(code);
    }

    /// Calls `tile` for each 8 x 8 codes and `visit` for each of the others, with the places of the first in the matrix
    /// and in columns.
    template <typename Tile, typename Visit>
    void for_each(const Tile& tile, const Visit& visit) const {
        constexpr std::size_t side = FastModel::block;
        const std::size_t stride = padded();
        for (std::size_t row = 0; row < rows; row += side) {
            const std::size_t height = std::min(rows - row, side);
            std::size_t column = 0;
            for (; height == side && column + side <= columns; column += side) {
                tile(row * pitch + column, column * stride + row);
            }
            for (std::size_t r = row; r < row + height; ++r) {
                for (std::size_t c = column; c < columns; ++c) visit(r * pitch + c, c * stride + r);
            }
        }
        for (std::size_t r = 0; r < rest; ++r) visit(rows * columns + r, columns * stride + r);
    }

    /// Calls `visit(place in the matrix, code)` for the codes beyond, column after column.
    template <typename Visit>
    void for_each_beyond(const std::vector<std::int16_t>& found, const Visit& visit) const {
        const std::size_t stride = padded();
        for (std::size_t at = 0; at < found.size(); at += FastModel::block) {
            if (!reaches(magnitude(Eight::load(found.data() + at)), FastModel::beyond)) continue;
            for (std::size_t i = at; i < at + FastModel::block; ++i) {
                if (std::abs(found[i]) == FastModel::beyond) visit(place(i % stride, i / stride), found[i]);
            }
        }
    }

    /// Columns of `(code - low) >> apart`, cut to what stands for the codes beyond.
    std::vector<std::int16_t> gather(const std::int32_t* codes, std::int32_t low, unsigned apart) const {
        const std::size_t stride = padded();
        const auto by = static_cast<int>(apart);
        std::vector<std::int16_t> found(stride * all_columns());
        const auto tile = [&](std::size_t from, std::size_t to) {
            std::array<Eight, FastModel::block> rows;
            for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = Eight::narrow(codes + from + i * pitch, low, by);
            transpose(rows);
            for (std::size_t i = 0; i < rows.size(); ++i) {
                const Eight cut = least(most(rows[i], Eight::all(-FastModel::beyond)), Eight::all(FastModel::beyond));
                cut.store(found.data() + to + i * stride);
            }
        };
        for_each(tile, [&](std::size_t from, std::size_t to) {
            const std::int32_t code = (codes[from] - low) >> by;
            found[to] = static_cast<std::int16_t>(std::min(std::max(code, -FastModel::beyond), FastModel::beyond));
        });
        return found;
    }

    /// The inverse of `gather`, but for codes beyond and for what the shift takes off.
    void scatter(const std::vector<std::int16_t>& found, std::int32_t low, unsigned apart, std::int32_t* codes) const {
        const std::size_t stride = padded();
        const auto by = static_cast<int>(apart);
        const auto tile = [&](std::size_t to, std::size_t from) {
            std::array<Eight, FastModel::block> rows;
            for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = Eight::load(found.data() + from + i * stride);
            transpose(rows);
            for (std::size_t i = 0; i < rows.size(); ++i) rows[i].widen(codes + to + i * pitch, low, by);
        };
        for_each(tile, [&](std::size_t to, std::size_t from) { codes[to] = low + found[from] * (1 << by); });
    }
};

}  // namespace whit::detail
