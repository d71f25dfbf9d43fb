// SPDX-License-Identifier: BSD-2-Clause
// ferryctl without the process around it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <iosfwd>
#include <span>
#include <string>

namespace ferry::ferryctl {

// Where the answers go.
struct Console {
    std::ostream& out;
    std::ostream& err;
    enum class Kind : uint8_t { Terminal, File } kind = Kind::File;  // of `out`
    size_t columns = 100;
    int interrupt_fd = -1;  // readable once the person has had enough; -1: there is none
    // Asked when there is no monitor behind a socket, or none yet: waits a little and says whether
    // to try again. Null: not at all.
    std::function<bool(const std::string& socket, unsigned attempts)> try_again = nullptr;
};

// Returns the exit status.
int run(std::span<const std::string> arguments, Console console);

}  // namespace ferry::ferryctl
