// A `.whit` file, read without Python: its header, and its arrays, each alone. See spec/whit-format.md.
//
//     const auto container = whit::Container::open("model.whit");
//     const whit::Array array = container.array(0);
//
// Everything that a file declares is checked before anything is made of it. What is wrong with a file is a FileError
// that names it and the place.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "whit/bit_packing.hpp"
#include "whit/byte_model.hpp"
#include "whit/codec.hpp"
#include "whit/crc32.hpp"
#include "whit/file_error.hpp"
#include "whit/floats.hpp"
#include "whit/json.hpp"
#include "whit/span.hpp"

namespace whit {

enum class Dtype { boolean, int8, uint8, int16, uint16, int32, int64, float16, float32, float64 };

/// The name of a dtype, as NumPy has it.
inline const char* name_of(Dtype dtype) {
    constexpr std::array<const char*, 10> names = {"bool",  "int8",  "uint8",   "int16",   "uint16",
                                                   "int32", "int64", "float16", "float32", "float64"};
    return names[static_cast<std::size_t>(dtype)];
}

/// Bytes of a value; a bool takes one.
inline std::size_t width_of(Dtype dtype) {
    constexpr std::array<std::size_t, 10> widths = {1, 1, 1, 2, 2, 4, 8, 2, 4, 8};
    return widths[static_cast<std::size_t>(dtype)];
}

using Shape = std::vector<std::uint64_t>;

/// The product of a shape's sizes, which are known not to overflow.
inline std::uint64_t count_of(const Shape& shape) {
    std::uint64_t count = 1;
    for (const std::uint64_t size : shape) count *= size;
    return count;
}

/// Values in C order: of bool as 0 and 1 in uint8, of float16 as their bits in uint16.
using Values = std::variant<std::vector<std::int8_t>, std::vector<std::uint8_t>, std::vector<std::int16_t>,
                            std::vector<std::uint16_t>, std::vector<std::int32_t>, std::vector<std::int64_t>,
                            std::vector<float>, std::vector<double>>;

struct Array {
    Dtype dtype;
    Shape shape;
    Values values;
};

/// How an array is stored.
struct Entry {
    enum class Way { plain, packed, codes, floats, bytes };

    Dtype dtype;
    Shape shape;
    std::uint64_t length;
    std::uint32_t crc32;
    Way way;
    int bits;          // with Way::packed only
    std::int32_t low;  // likewise

    std::uint64_t count() const { return count_of(shape); }
};

/// Where an array lies: in what is stored as one, alone or from a value on in a pool.
struct Piece {
    std::size_t stored;
    Shape shape;
    bool pooled;
    std::uint64_t first;
};

namespace detail {

inline constexpr std::int64_t most_bytes = std::int64_t{1} << 48;
inline constexpr std::uint32_t largest_header = 1u << 22;
inline constexpr std::ptrdiff_t most_json_values = 1 << 18;
inline constexpr std::size_t prefix_size = 28;

inline bool is_integer(Dtype dtype) { return dtype <= Dtype::int64; }

/// The smallest and the largest value of a dtype of integers, within int32.
inline std::pair<std::int32_t, std::int32_t> limits_of(Dtype dtype) {
    switch (dtype) {
        case Dtype::boolean: return {0, 1};
        case Dtype::int8: return {-128, 127};
        case Dtype::uint8: return {0, 255};
        case Dtype::int16: return {-32768, 32767};
        case Dtype::uint16: return {0, 65535};
        default: return {std::numeric_limits<std::int32_t>::min(), std::numeric_limits<std::int32_t>::max()};
    }
}

/// A shape whose product stays small enough even where one of its sizes is 0.
inline Shape shape_of(const Json& value) {
    const Json::List& sizes = value.list();
    if (sizes.size() > 32) throw std::runtime_error("a shape has more than 32 axes");
    Shape shape;
    std::uint64_t product = 1;
    for (const Json& size : sizes) {
        shape.push_back(static_cast<std::uint64_t>(size.whole(0, most_bytes)));
        const std::uint64_t factor = std::max<std::uint64_t>(shape.back(), 1);
        if (factor > static_cast<std::uint64_t>(most_bytes) / product) throw std::runtime_error("a shape is too large");
        product *= factor;
    }
    return shape;
}

inline Dtype dtype_of(const std::string& name) {
    for (int k = 0; k < 10; ++k) {
        if (name == name_of(static_cast<Dtype>(k))) return static_cast<Dtype>(k);
    }
    throw std::runtime_error("a .whit holds no arrays of dtype " + name.substr(0, 40));
}

/// Whether the stored bytes can hold the values.
inline bool fits(const Entry& entry) {
    const std::uint64_t count = entry.count(), size = count * width_of(entry.dtype);
    switch (entry.way) {
        case Entry::Way::plain: return entry.length == size;
        case Entry::Way::packed: return entry.length == packed_size(count, entry.bits);
        case Entry::Way::bytes: return size / most_bytes_from_one + (size % most_bytes_from_one != 0) <= entry.length;
        default: return count / most_floats_from_one + (count % most_floats_from_one != 0) <= entry.length;
    }
}

inline Entry::Way way_of(const Json::List& row, Dtype dtype) {
    const bool boolean = dtype == Dtype::boolean;
    if (row.size() == 3 && !boolean) return Entry::Way::plain;
    if (row.size() == 5 && is_integer(dtype)) return Entry::Way::packed;
    const std::string way = row.size() == 4 && row[3].is_text() ? row[3].text() : "";
    if (way == "codes" && is_integer(dtype)) return Entry::Way::codes;
    if (way == "floats" && dtype == Dtype::float32) return Entry::Way::floats;
    if (way == "bytes" && !boolean) return Entry::Way::bytes;
    throw std::runtime_error(std::string(name_of(dtype)) + " is not stored like this");
}

/// The entry that a row of the header describes, checked by itself.
inline Entry entry_of(const Json& value, std::uint32_t checksum) {
    const Json::List& row = value.list();
    if (row.size() < 3 || row.size() > 5) throw std::runtime_error("an entry has 3 to 5 items");
    const Dtype dtype = dtype_of(row[0].text());
    Entry entry{dtype,    shape_of(row[1]), static_cast<std::uint64_t>(row[2].whole(0, most_bytes)),
                checksum, way_of(row, dtype), 0, 0};
    if (entry.count() > static_cast<std::uint64_t>(most_bytes) / width_of(dtype)) {
        throw std::runtime_error("an array is too large");
    }
    if (entry.way == Entry::Way::packed) {
        const int widest = std::min<int>(16, 8 * static_cast<int>(width_of(dtype)) - 1);
        entry.bits = static_cast<int>(row[3].whole(1, dtype == Dtype::boolean ? 1 : widest));
        const auto [low, high] = limits_of(dtype);
        entry.low = static_cast<std::int32_t>(row[4].whole(low, std::int64_t{high} - (1 << entry.bits) + 1));
    }
    if (!fits(entry)) {
        throw std::runtime_error(std::to_string(entry.length) + " stored bytes cannot hold " +
                                 std::to_string(entry.count()) + " values of " + name_of(dtype));
    }
    return entry;
}

/// Little-endian bytes as values.
template <typename T>
std::vector<T> from_little_endian(Span<const std::uint8_t> bytes) {
    std::vector<T> values(bytes.size() / sizeof(T));
    for (std::size_t i = 0; i < values.size(); ++i) {
        std::uint64_t bits = 0;
        for (std::size_t k = sizeof(T); k-- > 0;) bits = bits << 8 | bytes[i * sizeof(T) + k];
        if constexpr (std::is_same_v<T, float>) {
            const auto narrow = static_cast<std::uint32_t>(bits);
            std::memcpy(&values[i], &narrow, sizeof(T));
        } else if constexpr (std::is_same_v<T, double>) {
            std::memcpy(&values[i], &bits, sizeof(T));
        } else {
            values[i] = static_cast<T>(bits);
        }
    }
    return values;
}

inline Values from_little_endian(Dtype dtype, Span<const std::uint8_t> bytes) {
    switch (dtype) {
        case Dtype::int8: return from_little_endian<std::int8_t>(bytes);
        case Dtype::int16: return from_little_endian<std::int16_t>(bytes);
        case Dtype::uint16:
        case Dtype::float16: return from_little_endian<std::uint16_t>(bytes);
        case Dtype::int32: return from_little_endian<std::int32_t>(bytes);
        case Dtype::int64: return from_little_endian<std::int64_t>(bytes);
        case Dtype::float32: return from_little_endian<float>(bytes);
        case Dtype::float64: return from_little_endian<double>(bytes);
        default: return from_little_endian<std::uint8_t>(bytes);
    }
}

template <typename T>
std::vector<T> narrowed(const std::vector<std::int32_t>& values) {
    return std::vector<T>(values.begin(), values.end());
}

/// Integers as values of a dtype of integers, which each of them is.
inline Values narrowed(Dtype dtype, std::vector<std::int32_t> values) {
    switch (dtype) {
        case Dtype::int8: return narrowed<std::int8_t>(values);
        case Dtype::int16: return narrowed<std::int16_t>(values);
        case Dtype::uint16: return narrowed<std::uint16_t>(values);
        case Dtype::int32: return values;
        case Dtype::int64: return narrowed<std::int64_t>(values);
        default: return narrowed<std::uint8_t>(values);
    }
}

inline std::vector<std::int32_t> decode_codes(const Entry& entry, Span<const std::uint8_t> bytes, int threads) {
    const bool matrix = entry.shape.size() > 1;
    const std::uint64_t rows = matrix ? entry.shape[0] : 1;
    std::uint64_t columns = 1;
    for (std::size_t axis = matrix ? 1 : 0; axis < entry.shape.size(); ++axis) columns *= entry.shape[axis];
    std::vector<std::int32_t> codes = decode(bytes, rows, columns, threads);
    const auto [low, high] = limits_of(entry.dtype);
    for (const std::int32_t code : codes) {
        if (code < low || code > high) throw std::runtime_error("a code is no " + std::string(name_of(entry.dtype)));
    }
    return codes;
}

inline Values decode_entry(const Entry& entry, Span<const std::uint8_t> bytes, int threads) {
    switch (entry.way) {
        case Entry::Way::plain: return from_little_endian(entry.dtype, bytes);
        case Entry::Way::packed:
            return narrowed(entry.dtype,
                            unpack_bits(bytes, static_cast<std::int64_t>(entry.count()), entry.bits, entry.low));
        case Entry::Way::codes: return narrowed(entry.dtype, decode_codes(entry, bytes, threads));
        case Entry::Way::floats: return decode_floats(bytes, entry.count());
        default: return from_little_endian(entry.dtype, decode_bytes(bytes, entry.count() * width_of(entry.dtype)));
    }
}

/// A run of an array's values.
inline Values part_of(const Values& values, std::uint64_t first, std::uint64_t count) {
    return std::visit(
        [&](const auto& all) -> Values {
            const auto begin = all.begin() + static_cast<std::ptrdiff_t>(first);
            return std::decay_t<decltype(all)>(begin, begin + static_cast<std::ptrdiff_t>(count));
        },
        values);
}

/// Calls `body`, and turns whatever it throws into a FileError that names the place.
template <typename Body>
auto reading(const std::string& where, const Body& body) {
    try {
        return body();
    } catch (const FileError&) {
        throw;
    } catch (const std::bad_alloc&) {
        throw FileError(where, "it does not fit into memory");
    } catch (const std::exception& error) {
        throw FileError(where, error.what());
    }
}

}  // namespace detail

/// An open file. Opening reads the header; arrays are read when they are asked for.
class Container {
public:
    /// Gives `size` bytes of the file from `first` on, or fewer where it ends.
    using Source = std::function<std::vector<std::uint8_t>(std::uint64_t first, std::uint64_t size)>;

    static Container open(const std::string& path) {
        std::ifstream file(path, std::ios::binary | std::ios::ate);
        const auto size = static_cast<std::int64_t>(file.tellg());
        if (!file || size < 0) throw FileError(path, "it cannot be read");
        return Container(path, static_cast<std::uint64_t>(size), [path](std::uint64_t first, std::uint64_t count) {
            std::ifstream part(path, std::ios::binary);
            std::vector<std::uint8_t> bytes(count);
            part.seekg(static_cast<std::streamoff>(first));
            part.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(count));
            bytes.resize(static_cast<std::size_t>(std::max<std::streamsize>(part.gcount(), 0)));
            return bytes;
        });
    }

    /// A file that lies in memory; `name` is for messages.
    static Container of(std::vector<std::uint8_t> bytes, const std::string& name) {
        const auto kept = std::make_shared<const std::vector<std::uint8_t>>(std::move(bytes));
        return Container(name, kept->size(), [kept](std::uint64_t first, std::uint64_t count) {
            const std::uint64_t begin = std::min<std::uint64_t>(first, kept->size());
            const std::uint64_t end = begin + std::min<std::uint64_t>(count, kept->size() - begin);
            return std::vector<std::uint8_t>(kept->begin() + static_cast<std::ptrdiff_t>(begin),
                                             kept->begin() + static_cast<std::ptrdiff_t>(end));
        });
    }

    const std::string& name() const { return name_; }
    const Json& content() const { return header_.at("content"); }
    const std::vector<Entry>& entries() const { return entries_; }
    const std::vector<Piece>& pieces() const { return pieces_; }
    std::uint64_t size() const { return size_; }

    /// How an array is stored, alone or in its pool.
    const Entry& entry(std::size_t place) const { return entries_.at(pieces_.at(place).stored); }

    /// Bytes that an array takes; in a pool its share, rounded up.
    std::uint64_t length(std::size_t place) const {
        const Entry& whole = entry(place);
        const std::uint64_t all = std::max<std::uint64_t>(whole.count(), 1);
        const std::uint64_t part = whole.length * count_of(pieces_[place].shape);
        return part / all + (part % all != 0);
    }

    /// Read one array, checked; a pool stays in memory once it was read. A large array may take `threads` threads.
    ///
    /// Several threads may read from one container.
    Array array(std::size_t place, int threads = 1) const {
        const Piece& piece = pieces_.at(place);
        const Dtype dtype = entries_[piece.stored].dtype;
        if (!piece.pooled) return {dtype, piece.shape, values(piece.stored, threads)};
        const std::lock_guard<std::mutex> lock(pools_->mutex);
        auto found = pools_->values.find(piece.stored);
        if (found == pools_->values.end()) {
            found = pools_->values.emplace(piece.stored, values(piece.stored, threads)).first;
        }
        return {dtype, piece.shape, detail::part_of(found->second, piece.first, count_of(piece.shape))};
    }

private:
    /// Values of what is stored as one.
    Values values(std::size_t stored, int threads) const {
        const Entry& whole = entries_[stored];
        const std::string where = name_ + ", array " + std::to_string(stored);
        return detail::reading(where, [&] {
            const std::vector<std::uint8_t> bytes = source_(starts_[stored], whole.length);
            if (bytes.size() != whole.length || crc32(bytes) != whole.crc32) {
                throw FileError(where, "the checksum is wrong, so its bytes were changed; get the file again");
            }
            return detail::decode_entry(whole, bytes, threads);
        });
    }

    /// Pools that were read: all that changes after opening, and shared by copies of a container.
    struct Pools {
        std::mutex mutex;
        std::map<std::size_t, Values> values;
    };

    Container(std::string name, std::uint64_t size, Source source)
        : name_(std::move(name)), size_(size), source_(std::move(source)) {
        detail::reading(name_ + ", header", [&] { read_header(); });
    }

    [[noreturn]] void fail(const std::string& what) const { throw FileError(name_, what); }

    void read_header() {
        const std::vector<std::uint8_t> prefix = source_(0, detail::prefix_size);
        constexpr std::array<std::uint8_t, 8> magic = {0x89, 'w', 'h', 'i', 't', '\r', '\n', 0x1a};
        const auto known = static_cast<std::ptrdiff_t>(std::min(prefix.size(), magic.size()));
        if (known == 0 || !std::equal(prefix.begin(), prefix.begin() + known, magic.begin())) {
            fail("it is not a .whit file");
        }
        if (prefix.size() < detail::prefix_size) fail("it is cut short");
        const auto numbers = detail::from_little_endian<std::uint32_t>({prefix.data() + 8, 20});
        const std::uint32_t version = numbers[0], stored = numbers[2], text_size = numbers[3], count = numbers[4];
        if (version != 1) fail("it has format version " + std::to_string(version) + ", this whit reads 1");
        const std::uint64_t header_size = stored + 4 * std::uint64_t{count};
        if (header_size > size_ - detail::prefix_size) fail("it is cut short");
        if (std::max(stored, text_size) > detail::largest_header) fail("it declares too large a header");
        const std::vector<std::uint8_t> header = source_(detail::prefix_size, header_size);
        if (header.size() != header_size || crc32(header) != numbers[1]) {
            fail("the header's checksum is wrong, so it was changed; get the file again");
        }
        if (text_size > most_bytes_from_one * stored) fail("its header declares more than it can hold");
        const std::vector<std::uint8_t> bytes = decode_bytes({header.data(), stored}, text_size);
        const auto of_json = [](std::uint8_t byte) { return byte == ',' || byte == '[' || byte == '{'; };
        if (std::count_if(bytes.begin(), bytes.end(), of_json) > detail::most_json_values) {
            fail("its header has too many values");
        }
        header_ = read_json({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
        const Json::Table& fields = header_.table({"content", "arrays", "pools"});
        fields.at("content").table();
        const auto checksums =
            detail::from_little_endian<std::uint32_t>({header.data() + stored, header.size() - stored});
        read_entries(fields.at("arrays").list(), fields.at("pools").list(), checksums,
                     detail::prefix_size + header_size);
    }

    static bool is_pooled(const Json& row) { return row.is_list() && row.list().size() == 2; }

    void read_entries(const Json::List& rows, const Json::List& pools, const std::vector<std::uint32_t>& checksums,
                      std::uint64_t start) {
        std::vector<const Json*> stored;
        for (const Json& row : rows) {
            if (!is_pooled(row)) stored.push_back(&row);
        }
        const std::size_t alone = stored.size();
        for (const Json& row : pools) stored.push_back(&row);
        if (stored.size() != checksums.size()) fail("its header lists more or fewer arrays than checksums");
        for (std::size_t place = 0; place < stored.size(); ++place) {
            entries_.push_back(detail::reading(name_ + ", array " + std::to_string(place),
                                               [&] { return detail::entry_of(*stored[place], checksums[place]); }));
            starts_.push_back(start);
            // What is larger than the file stays larger, and the sum below 2^49 at each step.
            if (entries_.back().length > size_ - std::min(start, size_)) fail("it is cut short");
            start += entries_.back().length;
        }
        if (start != size_) fail("it has bytes that its header does not account for");
        read_pieces(rows, alone);
    }

    void read_pieces(const Json::List& rows, std::size_t alone) {
        std::vector<std::uint64_t> filled(entries_.size() - alone);
        std::size_t next = 0;
        for (const Json& row : rows) {
            if (!is_pooled(row)) {
                pieces_.push_back({next, entries_[next].shape, false, 0});
                ++next;
                continue;
            }
            const auto last = static_cast<std::int64_t>(filled.size()) - 1;
            const auto pool = static_cast<std::size_t>(row.list()[0].whole(0, last));
            pieces_.push_back({alone + pool, detail::shape_of(row.list()[1]), true, filled[pool]});
            filled[pool] += count_of(pieces_.back().shape);
            if (filled[pool] > entries_[alone + pool].count()) fail("a pool holds less than its arrays");
        }
        for (std::size_t pool = 0; pool < filled.size(); ++pool) {
            if (entries_[alone + pool].shape != Shape{filled[pool]}) fail("a pool is not what its arrays fill");
        }
    }

    std::string name_;
    std::uint64_t size_;
    Source source_;
    Json header_;
    std::vector<Entry> entries_;
    std::vector<std::uint64_t> starts_;
    std::vector<Piece> pieces_;
    std::shared_ptr<Pools> pools_ = std::make_shared<Pools>();
};

}  // namespace whit
