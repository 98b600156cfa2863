// Where the codes of a chunk of the profile `fast` lie, and the columns as which they are coded.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "whit/fast_model.hpp"

namespace whit::detail {

/// Whole columns of a matrix; or, where there are too few rows to be told eight at a time, a run of codes in C order,
/// cut into 64 rows, with what is left over as one more, shorter column.
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

    /// Calls `visit(place in the matrix, place in columns)` for each code, tile by tile.
    template <typename Visit>
    void for_each(const Visit& visit) const {
        constexpr std::size_t tile = 8;
        const std::size_t stride = padded();
        for (std::size_t row = 0; row < rows && columns > 0; row += tile) {
            const std::size_t last_row = std::min(rows, row + tile);
            for (std::size_t column = 0; column < columns; column += tile) {
                const std::size_t last_column = std::min(columns, column + tile);
                for (std::size_t r = row; r < last_row; ++r) {
                    for (std::size_t c = column; c < last_column; ++c) visit(r * pitch + c, c * stride + r);
                }
            }
        }
        for (std::size_t r = 0; r < rest; ++r) visit(rows * columns + r, columns * stride + r);
    }
};

}  // namespace whit::detail
