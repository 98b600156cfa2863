// Prints the tensors of a .whit file: name, how it is stored, bits of a value, bytes in the file, shape, and the
// smallest, the largest and the mean value.
#include <algorithm>
#include <cstdio>
#include <exception>
#include <numeric>
#include <string>
#include <vector>

#include "whit/tensors.hpp"

namespace {

std::string text(const whit::Shape& shape) {
    std::string found;
    for (const auto size : shape) found += (found.empty() ? "" : "x") + std::to_string(size);
    return found.empty() ? "scalar" : found;
}

void print(const std::string& path) {
    const auto container = whit::Container::open(path);
    const std::vector<whit::Tensor> tensors = whit::tensors(container);
    for (std::size_t which = 0; which < tensors.size(); ++which) {
        const whit::Tensor& tensor = tensors[which];
        const std::vector<double> values = whit::values_of(container, tensors, which);
        std::printf("%s\t%s\t%d bits\t%llu bytes\t%s", tensor.name.c_str(), tensor.stored.c_str(), tensor.bits,
                    static_cast<unsigned long long>(tensor.bytes), text(tensor.shape).c_str());
        if (!values.empty()) {
            const auto [least, most] = std::minmax_element(values.begin(), values.end());
            const double sum = std::accumulate(values.begin(), values.end(), 0.0);
            std::printf("\t%.9g\t%.9g\t%.9g", *least, *most, sum / static_cast<double>(values.size()));
        }
        std::printf("\n");
    }
}

}  // namespace

int main(int count, char** arguments) {
    if (count != 2) {
        std::fprintf(stderr, "usage: print_tensors model.whit\n");
        return 2;
    }
    try {
        print(arguments[1]);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "error: %s\n", error.what());
        return 1;
    }
    return 0;
}
