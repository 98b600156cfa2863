// What is wrong with a file.
#pragma once

#include <stdexcept>
#include <string>

namespace whit {

/// A file is not a whole `.whit` file of this version, or cannot be read; the message names it and the place.
class FileError : public std::runtime_error {
public:
    FileError(const std::string& where, const std::string& what) : std::runtime_error(where + ": " + what) {}
};

}  // namespace whit
