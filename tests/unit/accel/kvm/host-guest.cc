// SPDX-License-Identifier: BSD-2-Clause
#include "tests/unit/accel/kvm/host-guest.h"

#include <algorithm>
#include <chrono>
#include <future>

namespace ferry::test {

namespace {
// Only reached when something hangs.
constexpr std::chrono::seconds kLimit{120};
}  // namespace

uint32_t RecordingBus::port_in(uint16_t port, unsigned) {
    if (port == kReadPort) return 1;
    const std::lock_guard lock(mutex_);
    return port == kCountPort ? ++counted_ : 0xffff'ffff;
}

kvm::AfterWrite RecordingBus::port_out(uint16_t port, unsigned, uint32_t value) {
    if (on_say) on_say(value);
    {
        const std::lock_guard lock(mutex_);
        said_.push_back(value);
    }
    changed_.notify_all();
    return port == kWaitPort ? kvm::AfterWrite::Wait : kvm::AfterWrite::GoOn;
}

void RecordingBus::mmio_read(system::Gpa, MutBytes out) {
    std::ranges::fill(out, std::byte{0x5a});
}

kvm::AfterWrite RecordingBus::mmio_write(system::Gpa gpa, ConstBytes in) {
    const std::lock_guard lock(mutex_);
    mmio_writes_.push_back({gpa, {in.begin(), in.end()}});
    return kvm::AfterWrite::GoOn;
}

bool RecordingBus::wait_for(size_t count) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, kLimit, [&] { return said_.size() >= count; });
}

std::vector<uint32_t> RecordingBus::said() const {
    const std::lock_guard lock(mutex_);
    return said_;
}

std::vector<RecordingBus::MmioWrite> RecordingBus::mmio_writes() const {
    const std::lock_guard lock(mutex_);
    return mmio_writes_;
}

const kvm::Kvm* host_kvm(std::string* why) {
    static const auto kOpened = kvm::Kvm::open();
    if (!kOpened) *why = kOpened.error().message();
    return kOpened ? kOpened->get() : nullptr;
}

HostGuest::HostGuest(const kvm::Kvm& kvm, std::span<const uint8_t> code, unsigned cpus,
                     std::string_view model) {
    block = memory.add_block(system::RamBlock::create_memfd("ram", kGuestRamBytes).value()).value();
    // A hole below 1 MiB, for accesses that nobody answers.
    constexpr uint64_t kHole = 0xa0000;
    EXPECT_TRUE(memory.map(*block, 0, 0, kHole));
    std::ranges::copy(std::as_bytes(code), block->host().begin() + kGuestCodeAt);
    vm = kvm::KvmVm::create(kvm, memory).value();
    auto created = kvm::Vcpus::create(
        *vm, {.count = cpus, .model = kvm::cpu_model(model, kvm.supported_cpuid()).value()}, bus,
        loop, env.env, [this](const kvm::GuestEnd& end) { ends.push_back(end); });
    if (!created) throw std::runtime_error(created.error().message());
    vcpus = std::move(*created);
    EXPECT_TRUE(reset());
}

HostGuest::~HostGuest() {
    loop.run([this] { vcpus.reset(); });
}

Result<> HostGuest::await(const std::function<void(system::Done)>& request) {
    std::promise<Result<>> done;
    loop.run([&] { request([&](Result<> result) { done.set_value(std::move(result)); }); });
    return done.get_future().get();
}

void HostGuest::resume() {
    loop.run([this] { vcpus->resume(); });
}

Result<> HostGuest::pause() {
    return await([this](system::Done done) { vcpus->pause(std::move(done)); });
}

Result<> HostGuest::reset(const std::function<void(kvm::VcpuState&)>& adjust) {
    return await([&](system::Done done) {
        vcpus->reset(
            [&](kvm::VcpuState& boot) {
                kvm::enter_real_mode(boot.regs, boot.sregs, {.offset = kGuestCodeAt});
                if (adjust) adjust(boot);
            },
            std::move(done));
    });
}

Result<> HostGuest::load(std::vector<kvm::VcpuState> states, const kvm::VmState& vm_state) {
    auto written =
        await([&](system::Done done) { vcpus->write_states(std::move(states), std::move(done)); });
    return written ? vm->set_state(vm_state) : written;
}

bool HostGuest::wait_for_ends(size_t count) {
    return loop.wait_for([&] { return ends.size() >= count; });
}

}  // namespace ferry::test
