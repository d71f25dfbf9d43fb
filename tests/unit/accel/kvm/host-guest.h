// SPDX-License-Identifier: BSD-2-Clause
// A small VM on the host's KVM, with a bus that keeps what the guest says to it.
#pragma once

#include <gtest/gtest.h>

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "accel/kvm/entry.h"
#include "accel/kvm/vcpus.h"
#include "tests/support/test-env.h"
#include "tests/support/test-loop.h"

namespace ferry::test {

inline constexpr uint64_t kGuestRamBytes = 1 << 20;
inline constexpr uint16_t kGuestCodeAt = 0x1000;
inline constexpr uint16_t kSayPort = 0x10;    // what the guest writes here is kept
inline constexpr uint16_t kWaitPort = 0x12;   // a write here is answered with Wait
inline constexpr uint8_t kReadPort = 0xe0;    // reads 1
inline constexpr uint16_t kCountPort = 0x30;  // reads 1, 2, 3, ...

class RecordingBus final : public kvm::Bus {
 public:
    uint32_t port_in(uint16_t port, unsigned length) override;
    kvm::AfterWrite port_out(uint16_t port, unsigned length, uint32_t value) override;
    void mmio_read(system::Gpa gpa, MutBytes out) override;
    kvm::AfterWrite mmio_write(system::Gpa gpa, ConstBytes in) override;

    // Waits (really, with a generous limit) until the guest has said so many values in all.
    bool wait_for(size_t count);
    std::vector<uint32_t> said() const;
    struct MmioWrite {
        system::Gpa gpa;
        std::vector<std::byte> bytes;
    };
    std::vector<MmioWrite> mmio_writes() const;
    // Called on the CPU's thread for each value, before it is kept.
    std::function<void(uint32_t value)> on_say;

 private:
    mutable std::mutex mutex_;
    std::condition_variable changed_;
    std::vector<uint32_t> said_;
    std::vector<MmioWrite> mmio_writes_;
    uint32_t counted_ = 0;
};

// The host's KVM, opened once; null, with the reason, where it cannot be used.
const kvm::Kvm* host_kvm(std::string* why);

class HostGuest {
 public:
    // With `code` at kGuestCodeAt and the first CPU about to enter it in real mode.
    explicit HostGuest(const kvm::Kvm& kvm, std::span<const uint8_t> code, unsigned cpus = 1,
                       std::string_view model = "host");
    ~HostGuest();

    // Test's thread.
    void resume();
    Result<> pause();
    Result<> reset(const std::function<void(kvm::VcpuState&)>& adjust = {});
    Result<> load(std::vector<kvm::VcpuState> states, const kvm::VmState& vm_state);
    // Waits until a CPU ended by itself so many times.
    bool wait_for_ends(size_t count);

    std::byte& ram(uint64_t gpa) { return block->host()[gpa]; }

    TestEnv env;
    TestLoop loop{env.clock};
    system::GuestMemory memory;
    system::RamBlock* block = nullptr;
    RecordingBus bus;
    std::vector<kvm::GuestEnd> ends;  // loop thread
    std::unique_ptr<kvm::KvmVm> vm;
    std::unique_ptr<kvm::Vcpus> vcpus;

 private:
    Result<> await(const std::function<void(system::Done)>& request);
};

class HostKvm : public testing::Test {
 protected:
    void SetUp() override {
        std::string why;
        kvm_ = host_kvm(&why);
        if (kvm_ == nullptr) GTEST_SKIP() << why;
    }
    const kvm::Kvm* kvm_ = nullptr;
};

}  // namespace ferry::test
