// Work on rows, shared out to threads.
#pragma once

#include <algorithm>
#include <cstddef>
#include <future>
#include <stdexcept>
#include <string>
#include <vector>

namespace whit {

/// Calls `body(row)` once for each row in [0, rows), on at most `threads` threads.
///
/// Invariant: as long as `body` writes only what belongs to its own row, the result
/// does not depend on `threads`. An exception in `body` reaches the caller.
template <typename Body>
void for_each_row(std::size_t rows, int threads, const Body& body) {
    if (threads < 1) {
        throw std::invalid_argument("threads is " + std::to_string(threads) + ", but at least 1 is needed.");
    }
    const std::size_t workers = std::clamp<std::size_t>(rows, 1, static_cast<std::size_t>(threads));
    const auto work = [&](std::size_t worker) {
        const std::size_t first = rows * worker / workers;
        const std::size_t last = rows * (worker + 1) / workers;
        for (std::size_t row = first; row < last; ++row) body(row);
    };
    // The futures of std::async wait in their destructors, so nothing outlives this frame.
    std::vector<std::future<void>> others;
    for (std::size_t worker = 1; worker < workers; ++worker) {
        others.push_back(std::async(std::launch::async, work, worker));
    }
    work(0);
    for (auto& other : others) other.get();
}

}  // namespace whit
