// SPDX-License-Identifier: BSD-2-Clause
// What a process holds besides its heap: descriptors, threads, shared mappings. Taken before an
// attempt and compared after it, it shows what the attempt left behind.
#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace ferry::test {

class Leftovers {
 public:
    Leftovers();  // what is there now
    // What came and what went since then, empty if nothing did. The kernel may take another moment
    // to take away a thread that was joined: waits for that, really, with a generous limit.
    std::string since() const;
    std::string difference() const;  // the same, at once

 private:
    // "fd socket:", "thread", "mapping /memfd:ram (deleted)", and how many of them there are; of
    // mappings, how many bytes.
    using Census = std::map<std::string, uint64_t>;
    static Census take();

    const Census before_;
};

}  // namespace ferry::test
