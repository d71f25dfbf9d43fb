// SPDX-License-Identifier: BSD-2-Clause
// ferry-vmm: from the command line to the exit status.
#include <fcntl.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "system/vmm/glib-main-loop.h"
#include "system/vmm/options.h"
#include "system/vmm/signals.h"
#include "system/vmm/vm.h"
#include "util/env.h"
#include "util/syscall.h"
#include "util/try.h"

namespace ferry::vmm {

namespace {

class VmmLogger final : public util::Logger {
 public:
    void log(util::LogLevel level, std::string_view message) override {
        const std::string_view prefix = level == util::LogLevel::Warning ? "warning: " : "";
        const std::string line = fmt::format("ferry-vmm: {}{}\n", prefix, message);
        std::fwrite(line.data(), 1, line.size(), stderr);
    }
};

// The file with the process id, removed when it goes.
class PidFile {
 public:
    explicit PidFile(std::string path) : path_(std::move(path)) {}
    ~PidFile() {
        if (written_) ::unlink(path_.c_str());
    }
    PidFile(const PidFile&) = delete;
    PidFile& operator=(const PidFile&) = delete;

    Result<> write() {
        if (path_.empty()) return {};
        MIG_TRY(const UniqueFd fd, util::open_file(path_, O_WRONLY | O_CREAT | O_TRUNC, 0644),
                "-pidfile");
        written_ = true;
        const std::string text = fmt::format("{}\n", ::getpid());
        return util::pwrite_all(fd.borrow(), bytes_of(text), 0, "-pidfile: write");
    }

 private:
    const std::string path_;
    bool written_ = false;
};

Result<> enable_traces(util::Tracer& tracer, const Options& options) {
    if (!options.trace_file.empty()) {
        MIG_CHECK(tracer.set_file(options.trace_file), "-trace file={}", options.trace_file);
    }
    for (const std::string& pattern : options.traces) {
        MIG_CHECK(tracer.enable(pattern), "-trace {}", pattern);
    }
    return {};
}

Result<int> run(const std::vector<std::string>& arguments, util::Logger& log) {
    MIG_CHECK(install_signal_handlers());
    MIG_TRY(auto parsed, parse_command_line(arguments));
    if (const auto* print = std::get_if<PrintAndExit>(&parsed)) {
        std::fwrite(print->text.data(), 1, print->text.size(), stdout);
        return EXIT_SUCCESS;
    }
    Options& options = std::get<Options>(parsed);
    util::SystemClock clock;
    util::Tracer tracer(clock);
    util::Timeline timeline(clock);
    util::ActivityBoard activity(clock);
    util::Env env{clock, log, tracer, timeline, activity};
    if (!options.process_name.empty()) {
        MIG_CHECK(util::check_call(::prctl(PR_SET_NAME, options.process_name.c_str(), 0, 0, 0),
                                   "prctl(PR_SET_NAME)"));
    }
    MIG_CHECK(enable_traces(tracer, options));
    PidFile pid_file(options.pidfile);
    GlibMainLoop loop;
    MIG_TRY(auto vm, Vm::create(std::move(options), loop, env));
    MIG_CHECK(pid_file.write());
    return vm->run();
}

}  // namespace

}  // namespace ferry::vmm

int main(int argc, char** argv) {
    ferry::vmm::VmmLogger log;
    const auto status = ferry::vmm::run(std::vector<std::string>(argv + 1, argv + argc), log);
    if (status) return *status;
    log.log(ferry::util::LogLevel::Error, status.error().message());
    return EXIT_FAILURE;
}
