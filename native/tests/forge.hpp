// Files made by hand, right or wrong, and what the reader says of them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "whit/tensors.hpp"

namespace forge {

using Bytes = std::vector<std::uint8_t>;

inline void put(Bytes& bytes, std::uint32_t value) {
    for (int shift = 0; shift < 32; shift += 8) bytes.push_back(static_cast<std::uint8_t>(value >> shift));
}

inline void put(Bytes& bytes, const Bytes& more) { bytes.insert(bytes.end(), more.begin(), more.end()); }

/// A file of a header's text and arrays as they are stored, all checksums right.
inline Bytes file_of(const std::string& text, const std::vector<Bytes>& arrays, std::uint32_t version = 1) {
    const Bytes plain(text.begin(), text.end());
    Bytes header = whit::encode_bytes(plain);
    const auto stored = static_cast<std::uint32_t>(header.size());
    for (const Bytes& array : arrays) put(header, whit::crc32(array));
    Bytes file = {0x89, 'w', 'h', 'i', 't', '\r', '\n', 0x1a};
    put(file, version);
    put(file, whit::crc32(header));
    put(file, stored);
    put(file, static_cast<std::uint32_t>(plain.size()));
    put(file, static_cast<std::uint32_t>(arrays.size()));
    put(file, header);
    for (const Bytes& array : arrays) put(file, array);
    return file;
}

/// Everything that can be read of a file.
inline std::vector<std::vector<double>> read_all(const Bytes& bytes) {
    const auto container = whit::Container::of(bytes, "file");
    for (std::size_t place = 0; place < container.pieces().size(); ++place) container.array(place);
    const auto tensors = whit::tensors(container);
    std::vector<std::vector<double>> found;
    for (std::size_t which = 0; which < tensors.size(); ++which) {
        found.push_back(whit::values_of(container, tensors, which));
    }
    return found;
}

/// The message of the FileError with which a file is refused, or "" if it is read.
inline std::string refusal(const Bytes& bytes) {
    try {
        read_all(bytes);
    } catch (const whit::FileError& error) {
        return error.what();
    }
    return "";
}

inline bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace forge
