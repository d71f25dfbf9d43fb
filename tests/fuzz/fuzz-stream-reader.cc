// SPDX-License-Identifier: BSD-2-Clause
// ferry-stream over any file.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "tests/fuzz/bytes-channel.h"
#include "tools/ferry-stream/run.h"
#include "util/unique-fd.h"

using namespace ferry;

namespace {

std::string run(std::vector<std::string> arguments) {
    std::ostringstream out, err;
    const int status = stream_tool::run(arguments, {out, err});
    if (status != 0 && status != 1) abort();  // it is a file, and the command line is right
    return out.str();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const UniqueFd file(::memfd_create("fuzz", MFD_CLOEXEC));
    if (::write(file.borrow().raw(), data, size) != static_cast<ssize_t>(size)) abort();
    const std::string path = "/proc/self/fd/" + std::to_string(file.borrow().raw());
    if (!nlohmann::json::accept(run({"--json", "--pages", path}))) abort();
    run({path});
    return 0;
}
