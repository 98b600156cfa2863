// Views of memory that someone else owns: what C++20's std::span would be.
#pragma once

#include <cstddef>
#include <vector>

namespace whit {

/// `size` values in a row, starting at `data`.
template <typename T>
class Span {
public:
    constexpr Span(T* data, std::size_t size) : data_(data), size_(size) {}

    /// A vector can be viewed wherever its values can be read.
    template <typename U>
    Span(const std::vector<U>& values) : Span(values.data(), values.size()) {}

    constexpr T* data() const { return data_; }
    constexpr std::size_t size() const { return size_; }
    constexpr T& operator[](std::size_t i) const { return data_[i]; }
    constexpr T* begin() const { return data_; }
    constexpr T* end() const { return data_ + size_; }

private:
    T* data_;
    std::size_t size_;
};

/// `rows * columns` values, row after row (C order).
template <typename T>
class Matrix {
public:
    constexpr Matrix(T* data, std::size_t rows, std::size_t columns)
        : data_(data), rows_(rows), columns_(columns) {}

    constexpr std::size_t rows() const { return rows_; }
    constexpr std::size_t columns() const { return columns_; }
    constexpr Span<T> row(std::size_t i) const { return {data_ + i * columns_, columns_}; }
    constexpr Span<T> flat() const { return {data_, rows_ * columns_}; }

private:
    T* data_;
    std::size_t rows_;
    std::size_t columns_;
};

}  // namespace whit
