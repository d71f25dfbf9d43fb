// SPDX-License-Identifier: BSD-2-Clause
#include <iostream>
#include <string>
#include <vector>

#include "tools/ferry-stream/run.h"

int main(int argc, char** argv) {
    std::ios::sync_with_stdio(false);
    const std::vector<std::string> arguments(argv + (argc > 0 ? 1 : 0), argv + argc);
    return ferry::stream_tool::run(arguments, {std::cout, std::cerr});
}
