// SPDX-License-Identifier: BSD-2-Clause
#include "tests/fuzz/bytes-channel.h"

#include <algorithm>
#include <cstdlib>

#include "util/try.h"

namespace ferry::test {

Result<> BytesChannel::check_open() {
    const std::lock_guard lock(mutex_);
    if (shut_) return *shut_;
    return {};
}

Result<size_t> BytesChannel::read_some(MutBytes into) {
    MIG_CHECK(check_open());
    const size_t count = std::min(into.size(), bytes_.size() - at_);
    std::copy_n(bytes_.begin() + static_cast<ptrdiff_t>(at_), count, into.begin());
    at_ += count;
    bytes_read_ += count;
    return count;
}

Result<> BytesChannel::write_all(std::span<const ConstBytes> parts) {
    MIG_CHECK(check_open());
    for (const ConstBytes part : parts) bytes_written_ += part.size();
    return {};
}

void BytesChannel::shutdown(Error reason) noexcept {
    const std::lock_guard lock(mutex_);
    if (!shut_) shut_ = std::move(reason);
}

hw::TestDeviceConfig fuzz_device() {
    hw::TestDeviceConfig config;
    config.state_bytes = 8 * 1024;
    return config;
}

void settle(TestVm& vm) {
    if (!vm.wait_over()) std::abort();
    if (!vm.loop.wait_for([&vm] { return !vm.runstate.busy(); })) std::abort();
}

}  // namespace ferry::test
