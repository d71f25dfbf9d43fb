// SPDX-License-Identifier: BSD-2-Clause
// What the fuzzers share: a peer that has sent all it ever sends, and a small VM to send it to.
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string_view>
#include <vector>

#include "hw/test-device.h"
#include "migration/channel.h"
#include "tests/support/test-vm.h"

namespace ferry::test {

using Bytes = std::vector<std::byte>;

inline ConstBytes fuzz_input(const uint8_t* data, size_t size) {
    return std::as_bytes(std::span(data, size));
}

// Reads give these bytes and then the end; what is written is lost.
class BytesChannel final : public migration::MigrationChannel {
 public:
    explicit BytesChannel(ConstBytes bytes) : bytes_(bytes.begin(), bytes.end()) {}

    std::string_view name() const override { return "fuzz"; }
    Features features() const override { return {.duplex = true}; }
    Result<size_t> read_some(MutBytes into) override;
    Result<> write_all(std::span<const ConstBytes> parts) override;
    Result<> finish_writing() override { return {}; }
    void shutdown(Error reason) noexcept override;

 private:
    Result<> check_open();

    const Bytes bytes_;
    size_t at_ = 0;  // of the reading thread
    std::mutex mutex_;
    std::optional<Error> shut_;
};

// The VM that the seeds were recorded of, and that they are loaded into.
inline constexpr uint64_t kFuzzRamBytes = 16 * 1024;
inline constexpr unsigned kFuzzSlot = 3;
hw::TestDeviceConfig fuzz_device();

// Until neither an attempt nor a transition is under way; aborts where that never comes.
void settle(TestVm& vm);

}  // namespace ferry::test
