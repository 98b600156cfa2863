// A test harness of one page, so that a C++17 compiler is all the native tests need.
//
//     TEST("what should hold") { CHECK(1 + 1 == 2); CHECK_ERROR(f(-1), "part of the message"); }
//
// One source file of the program defines main() as `return check::run_all();`.
#pragma once

#include <cstdio>
#include <exception>
#include <stdexcept>
#include <string>
#include <vector>

namespace check {

struct Test {
    const char* name;
    void (*body)();
};

inline std::vector<Test>& tests() {
    static std::vector<Test> all;
    return all;
}

inline bool add(const char* name, void (*body)()) {
    tests().push_back({name, body});
    return true;
}

/// A failed check ends its test; the other tests still run.
inline void that(bool holds, const std::string& what, const char* file, int line) {
    if (!holds) throw std::runtime_error(std::string(file) + ":" + std::to_string(line) + ": " + what);
}

/// The message of the std::invalid_argument that `call` throws, or "" if it throws none.
template <typename Call>
std::string error_of(const Call& call) {
    try {
        call();
    } catch (const std::invalid_argument& error) {
        return error.what();
    }
    return "";
}

inline int run_all() {
    int failed = 0;
    for (const Test& test : tests()) {
        try {
            test.body();
        } catch (const std::exception& error) {
            ++failed;
            std::printf("FAILED %s\n  %s\n", test.name, error.what());
        }
    }
    std::printf("native: %d passed, %d failed\n", static_cast<int>(tests().size()) - failed, failed);
    return failed == 0 ? 0 : 1;
}

}  // namespace check

#define CHECK_JOIN_(a, b) a##b
#define CHECK_JOIN(a, b) CHECK_JOIN_(a, b)
#define TEST(name)                                                                                             \
    static void CHECK_JOIN(test_, __LINE__)();                                                                 \
    [[maybe_unused]] static const bool CHECK_JOIN(added_, __LINE__) = check::add(name, CHECK_JOIN(test_, __LINE__)); \
    static void CHECK_JOIN(test_, __LINE__)()
#define CHECK(...) check::that((__VA_ARGS__), #__VA_ARGS__, __FILE__, __LINE__)
#define CHECK_ERROR(call, part)                                                                       \
    do {                                                                                              \
        const std::string message = check::error_of([&] { call; });                                   \
        check::that(message.find(part) != std::string::npos, #call " should fail with \"" part        \
                    "\", but gave \"" + message + "\"", __FILE__, __LINE__);                          \
    } while (false)
