// SPDX-License-Identifier: BSD-2-Clause
#include <sys/ioctl.h>
#include <unistd.h>

#include <iostream>
#include <string>
#include <vector>

#include "tools/ferryctl/run.h"

int main(int argc, char** argv) {
    using ferry::ferryctl::Console;
    const std::vector<std::string> arguments(argv + (argc > 0 ? 1 : 0), argv + argc);
    Console console{std::cout, std::cerr};
    if (::isatty(STDOUT_FILENO) == 1) {
        console.kind = Console::Kind::Terminal;
        winsize size{};
        if (::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1) {
            console.columns = size.ws_col;
        }
    }
    return ferry::ferryctl::run(arguments, console);
}
