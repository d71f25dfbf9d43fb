// SPDX-License-Identifier: BSD-2-Clause
// Scripts of faults, and the log of calls.
#include <fnmatch.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <optional>

#include "hw/vfio/device-io-faulty.h"
#include "trace-points.h"
#include "util/try.h"

namespace ferry::vfio {

namespace {

struct ErrnoName {
    std::string_view name;
    int value;
};
constexpr std::array kErrnoNames = {
    ErrnoName{"EAGAIN", EAGAIN},
    ErrnoName{"EBADF", EBADF},
    ErrnoName{"EBUSY", EBUSY},
    ErrnoName{"EFAULT", EFAULT},
    ErrnoName{"EINTR", EINTR},
    ErrnoName{"EINVAL", EINVAL},
    ErrnoName{"EIO", EIO},
    ErrnoName{"EMFILE", EMFILE},
    ErrnoName{"ENODEV", ENODEV},
    ErrnoName{"ENOMEM", ENOMEM},
    ErrnoName{"ENOSPC", ENOSPC},
    ErrnoName{"ENOTCONN", ENOTCONN},
    ErrnoName{"ENOTTY", ENOTTY},
    ErrnoName{"EOPNOTSUPP", EOPNOTSUPP},
    ErrnoName{"EPERM", EPERM},
    ErrnoName{"EREMOTEIO", EREMOTEIO},
    ErrnoName{"ETIMEDOUT", ETIMEDOUT},
};

bool matches(const std::string& pattern, const std::string& name) {
    return ::fnmatch(pattern.c_str(), name.c_str(), 0) == 0;
}

Error bad_statement(std::string_view statement, std::string_view why) {
    return make_error(ErrorKind::InvalidArgument, "fault script: '{}': {}", statement, why);
}

std::optional<uint64_t> parse_number(std::string_view text) {
    uint64_t number = 0;
    const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (status != std::errc() || end != text.data() + text.size()) return std::nullopt;
    return number;
}

Result<int> parse_errno(std::string_view statement, std::string_view text) {
    const auto at = std::ranges::find(kErrnoNames, text, &ErrnoName::name);
    if (at == kErrnoNames.end()) return bad_statement(statement, "no error name at the end");
    return at->value;
}

struct Place {
    std::string pattern;
    uint64_t nth = 1;
};

// "PATTERN" or "PATTERN#N".
Result<Place> parse_place(std::string_view statement, std::string_view text) {
    Place place{std::string(text)};
    if (const size_t hash = text.rfind('#'); hash != text.npos) {
        const auto nth = parse_number(text.substr(hash + 1));
        if (!nth || *nth == 0) return bad_statement(statement, "# wants a number from 1 on");
        place = {std::string(text.substr(0, hash)), *nth};
    }
    if (place.pattern.empty()) return bad_statement(statement, "no call is named");
    return place;
}

// "PATTERN[#N]:ERRNO[+error]".
Result<FaultControl::Fault> parse_fault(std::string_view statement, std::string_view text) {
    using enum FaultControl::Then;
    constexpr std::string_view kLost = "+error";
    const bool lost = text.ends_with(kLost);
    if (lost) text.remove_suffix(kLost.size());
    const size_t colon = text.rfind(':');
    if (colon == text.npos) return bad_statement(statement, "no error name at the end");
    MIG_TRY(const int errnum, parse_errno(statement, text.substr(colon + 1)));
    MIG_TRY(auto place, parse_place(statement, text.substr(0, colon)));
    if (lost && !place.pattern.starts_with("arc:")) {
        return bad_statement(statement, "only an arc can end in ERROR");
    }
    return FaultControl::Fault{std::move(place.pattern), place.nth, errnum,
                               lost ? DeviceIsLost : DeviceStays};
}

}  // namespace

struct FaultControl::Script {
    std::vector<Fault> faults;
    std::vector<Hold> holds;
    std::optional<size_t> read_limit, write_limit;
    std::optional<EmptyReads> empty_reads;
    enum class Release : uint8_t { No, Yes } release = Release::No;
};

Result<FaultControl::Script> FaultControl::read_script(std::string_view text) {
    Script script;
    while (!text.empty()) {
        const std::string_view statement = text.substr(0, text.find(';'));
        text.remove_prefix(std::min(statement.size() + 1, text.size()));
        const std::string_view verb = statement.substr(0, statement.find('='));
        const std::string_view value =
            verb.size() < statement.size() ? statement.substr(verb.size() + 1) : "";
        if (verb == "fail") {
            MIG_TRY(auto fault, parse_fault(statement, value));
            script.faults.push_back(std::move(fault));
        } else if (verb == "hold") {
            MIG_TRY(auto place, parse_place(statement, value));
            script.holds.push_back({std::move(place.pattern), place.nth});
        } else if (verb == "short-reads" || verb == "short-writes") {
            const auto bytes = value.empty() ? 1 : parse_number(value);
            if (!bytes) return bad_statement(statement, "wants a number of bytes");
            (verb == "short-reads" ? script.read_limit : script.write_limit) = bytes;
        } else if (statement == "empty-reads") {
            script.empty_reads = EmptyReads::On;
        } else if (statement == "release") {
            script.release = Script::Release::Yes;
        } else {
            return bad_statement(statement,
                                 "known are fail=, hold=, release, short-reads, short-writes, "
                                 "empty-reads");
        }
    }
    return script;
}

Result<std::shared_ptr<FaultControl>> FaultControl::parse(std::string_view script) {
    auto control = std::make_shared<FaultControl>();
    MIG_CHECK(control->apply(script));
    return control;
}

Result<> FaultControl::apply(std::string_view text) {
    MIG_TRY(Script script, read_script(text));
    if (script.release == Script::Release::Yes) release();
    for (Fault& fault : script.faults) fail(std::move(fault));
    for (Hold& next : script.holds) hold(std::move(next.pattern), next.nth);
    if (script.read_limit) limit_reads(*script.read_limit);
    if (script.write_limit) limit_writes(*script.write_limit);
    if (script.empty_reads) set_empty_reads(*script.empty_reads);
    return {};
}

void FaultControl::fail(Fault fault) {
    const std::lock_guard lock(mutex_);
    faults_.push_back(std::move(fault));
}

void FaultControl::hold(std::string pattern, uint64_t nth) {
    const std::lock_guard lock(mutex_);
    holds_.push_back({std::move(pattern), nth});
}

void FaultControl::release() {
    {
        const std::lock_guard lock(mutex_);
        holds_.clear();
        ++releases_;
    }
    changed_.notify_all();
}

void FaultControl::limit_reads(size_t bytes) {
    const std::lock_guard lock(mutex_);
    data_.read_limit = bytes;
}

void FaultControl::limit_writes(size_t bytes) {
    const std::lock_guard lock(mutex_);
    data_.write_limit = bytes;
}

void FaultControl::set_empty_reads(EmptyReads empty_reads) {
    const std::lock_guard lock(mutex_);
    data_.empty_reads = empty_reads;
}

FaultControl::DataRules FaultControl::data_rules() const {
    const std::lock_guard lock(mutex_);
    return data_;
}

std::vector<FaultControl::Call> FaultControl::log() const {
    const std::lock_guard lock(mutex_);
    return log_;
}

void FaultControl::clear_log() {
    const std::lock_guard lock(mutex_);
    log_.clear();
}

uint64_t FaultControl::count(std::string_view pattern) const {
    const std::string wanted(pattern);
    const std::lock_guard lock(mutex_);
    uint64_t total = 0;
    for (const auto& [name, calls] : counts_) total += matches(wanted, name) ? calls : 0;
    return total;
}

std::vector<FaultControl::Call> FaultControl::held() const {
    const std::lock_guard lock(mutex_);
    return held_;
}

void FaultControl::wait_until_held(size_t calls) const {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return held_.size() >= calls; });
}

// Counts down what matches; each request has its own count.
bool FaultControl::wants_hold(const std::string& name) {
    bool wanted = false;
    for (Hold& hold : holds_) {
        if (!matches(hold.pattern, name)) continue;
        if (hold.nth > 1) {
            --hold.nth;
        } else {
            wanted = true;
        }
    }
    return wanted;
}

FaultControl::Outcome FaultControl::take_fault(const Call& call) {
    Outcome outcome;
    std::erase_if(faults_, [&](Fault& fault) {
        if (!matches(fault.pattern, call.name)) return false;
        if (--fault.nth != 0) return false;
        if (outcome.result) {
            outcome = {make_errno(fault.errnum, "{}: {} (injected)", call.device, call.name),
                       fault.then};
        }
        return true;
    });
    return outcome;
}

FaultControl::Outcome FaultControl::on_call(const util::Tracer& trace, Call call) {
    std::unique_lock lock(mutex_);
    ++counts_[call.name];
    if (log_.size() < kMaxLog) log_.push_back(call);
    Outcome outcome = take_fault(call);
    if (wants_hold(call.name)) {
        trace::vfio_fault_hold(trace, call.device, call.name);
        held_.push_back(call);
        changed_.notify_all();
        changed_.wait(lock, [this, before = releases_] { return releases_ != before; });
        held_.erase(std::ranges::find(held_, call));
        changed_.notify_all();
    }
    if (!outcome.result) {
        trace::vfio_fault_injected(trace, call.device, call.name, outcome.result.error().message());
    }
    return outcome;
}

}  // namespace ferry::vfio
