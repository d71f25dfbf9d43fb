// SPDX-License-Identifier: BSD-2-Clause
#include "util/trace.h"

#include <fmt/format.h>
#include <fnmatch.h>

#include "util/syscall.h"
#include "util/try.h"

namespace ferry::util {

Tracer::Tracer(std::span<const std::string_view> event_names, const Clock& clock)
    : names_(event_names),
      clock_(clock),
      enabled_(std::make_unique<std::atomic<bool>[]>(event_names.size() + 1)) {}

Tracer::~Tracer() {
    if (file_ != nullptr) std::fclose(file_);
}

Result<> Tracer::enable(std::string_view pattern) {
    const std::string glob(pattern);
    bool matched = false;
    for (size_t i = 0; i < names_.size(); ++i) {
        if (::fnmatch(glob.c_str(), std::string(names_[i]).c_str(), 0) == 0) {
            enabled_[i].store(true, std::memory_order_relaxed);
            matched = true;
        }
    }
    if (!matched) {
        return make_error(ErrorKind::InvalidArgument, "no trace event matches '{}'", pattern);
    }
    return {};
}

Result<> Tracer::set_file(const std::string& path) {
    std::FILE* file = std::fopen(path.c_str(), "we");
    if (file == nullptr) return errno_error(fmt::format("trace file {}", path));
    const std::lock_guard lock(mutex_);
    if (file_ != nullptr) std::fclose(file_);
    file_ = file;
    return {};
}

void Tracer::emit(std::string_view name, const std::string& arguments) const {
    const auto now = clock_.now().count();
    const std::string line =
        fmt::format("{}.{:09} {} {}\n", now / 1'000'000'000, now % 1'000'000'000, name, arguments);
    const std::lock_guard lock(mutex_);
    std::FILE* out = file_ != nullptr ? file_ : stderr;
    std::fwrite(line.data(), 1, line.size(), out);
    std::fflush(out);
}

}  // namespace ferry::util
