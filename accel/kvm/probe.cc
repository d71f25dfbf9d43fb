// SPDX-License-Identifier: BSD-2-Clause
#include "accel/kvm/probe.h"

#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <thread>

#include "accel/kvm/dirty-ring.h"
#include "accel/kvm/entry.h"
#include "accel/kvm/memory-slots.h"
#include "system/memory.h"
#include "util/bitmap.h"
#include "util/mapped-region.h"
#include "util/thread.h"
#include "util/try.h"

namespace ferry::kvm {

namespace {

constexpr uint64_t kRamBytes = 16 * system::kPageSize;
constexpr uint16_t kCodeAt = 0x1000;
constexpr uint64_t kWrittenPage = 2;
constexpr uint64_t kLoggedPages = kRamBytes / system::kPageSize;
constexpr uint16_t kPort = 0x10;
// again: incb 0x2000; outb %al, $0x10; jmp again
constexpr std::array<uint8_t, 8> kCode{0xfe, 0x06, 0x00, 0x20, 0xe6, kPort, 0xeb, 0xf8};
// Long enough for pages to be taken from the ring while the guest goes on writing to them:
// begin: mov $0x4001, %cx; again: incb 0x2000; incb 0x3000; incb 0x4000; incb 0x5000; loop again;
// outb %al, $0x10; jmp begin
constexpr std::array<uint8_t, 25> kBusyCode{0xb9, 0x01, 0x40, 0xfe, 0x06,  0x00, 0x20, 0xfe, 0x06,
                                            0x00, 0x30, 0xfe, 0x06, 0x00,  0x40, 0xfe, 0x06, 0x00,
                                            0x50, 0xe2, 0xee, 0xe6, kPort, 0xeb, 0xe7};
constexpr uint64_t kBusyPages = 4;  // from kWrittenPage on
constexpr int kBusyRounds = 10;
constexpr int kBusyAttempts =
    16;  // a ring that is wrong in software goes wrong early or not at all

class ProbeGuest {
 public:
    explicit ProbeGuest(const Kvm& kvm) : kvm_(kvm), calls_(kvm.calls()) {}

    Result<> create() {
        MIG_TRY(ram_, system::RamBlock::create_memfd("kvm-probe", kRamBytes));
        std::memcpy(ram_->host().data() + kCodeAt, kCode.data(), kCode.size());
        MIG_TRY(vm_, kvm_.create_vm());
        MIG_CHECK(set_tss_address(calls_, vm_.borrow()));
        const Capabilities& host = kvm_.capabilities();
        if (host.dirty_log == DirtyLogMode::Ring) {
            MIG_CHECK(enable_dirty_rings(calls_, vm_.borrow(), host));
        }
        MIG_CHECK(set_slot(calls_, vm_.borrow(), slot(), 0));
        MIG_TRY(vcpu_, calls_.ioctl_fd(vm_.borrow(), KVM_CREATE_VCPU, 0, "ioctl(KVM_CREATE_VCPU)"));
        MIG_TRY(run_, util::MappedRegion::map(vcpu_.borrow(), 0, kvm_.run_bytes(), "kvm_run"));
        kvm_sregs sregs{};
        MIG_CHECK(calls_.get(vcpu_.borrow(), KVM_GET_SREGS, &sregs, "ioctl(KVM_GET_SREGS)"));
        kvm_regs regs{};
        enter_real_mode(regs, sregs, {.segment = 0, .offset = kCodeAt});
        MIG_CHECK(calls_.set(vcpu_.borrow(), KVM_SET_SREGS, &sregs, "ioctl(KVM_SET_SREGS)"));
        return calls_.set(vcpu_.borrow(), KVM_SET_REGS, &regs, "ioctl(KVM_SET_REGS)");
    }

    // Until it has written once more and told so.
    Result<> run_once() {
        const auto before = written();
        MIG_CHECK(enter_guest());
        // NOLINTNEXTLINE(cppcoreguidelines-pro-type-reinterpret-cast): the kernel maps it
        const auto& run = *reinterpret_cast<const kvm_run*>(run_.bytes().data());
        if (run.exit_reason == KVM_EXIT_DIRTY_RING_FULL) {
            return make_error(ErrorKind::Unsupported, "it is full of next to nothing");
        }
        if (run.exit_reason != KVM_EXIT_IO || run.io.port != kPort) {
            return make_error(ErrorKind::Unsupported, "ended with exit reason {}, not at its port",
                              run.exit_reason);
        }
        if (written() == before) {
            return make_error(ErrorKind::Unsupported, "did not write to its memory");
        }
        return {};
    }

    Result<> enable_manual_protect() {
        kvm_enable_cap enable{};
        enable.cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2;
        enable.args[0] = KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE;
        return calls_.set(vm_.borrow(), KVM_ENABLE_CAP, &enable, "ioctl(KVM_ENABLE_CAP)");
    }

    // Likewise for its ring, which it has from the start.
    Result<> check_ring() {
        DirtyRings rings(calls_, vm_.borrow(), kvm_.capabilities().dirty_ring_entries);
        rings.watch({slot()});
        MIG_CHECK(rings.add(vcpu_.borrow()));
        MIG_CHECK(set_slot(calls_, vm_.borrow(), slot(), KVM_MEM_LOG_DIRTY_PAGES));
        for (int round = 0; round < 2; ++round) {
            MIG_CHECK(run_once());
            for (const bool expected : {true, false}) {
                util::Bitmap dirty(kLoggedPages);
                MIG_CHECK(rings.harvest_all());
                rings.take(0, dirty);
                if (dirty.test(kWrittenPage) == expected) continue;
                return make_error(ErrorKind::Unsupported, "a page that was written is {}",
                                  expected ? "not in it" : "in it for ever");
            }
        }
        return {};
    }

    // A guest that goes on writing to a few pages while its ring is harvested, as in a migration:
    // what changed since is in the ring, which can't be full of so few pages.
    Result<> check_busy_ring() {
        std::memcpy(ram_->host().data() + kCodeAt, kBusyCode.data(), kBusyCode.size());
        DirtyRings rings(calls_, vm_.borrow(), kvm_.capabilities().dirty_ring_entries);
        rings.watch({slot()});
        MIG_CHECK(rings.add(vcpu_.borrow()));
        MIG_CHECK(set_slot(calls_, vm_.borrow(), slot(), KVM_MEM_LOG_DIRTY_PAGES));
        BusyPages seen{};
        for (int round = 0; round < kBusyRounds; ++round) {
            std::atomic<bool> over = false;
            Result<> ran;
            MIG_TRY(std::jthread guest,
                    util::start_thread("kvm/probe", [&](const std::stop_token&) {
                        ran = run_once();
                        over = true;
                    }));
            Result<> looked;
            while (looked && !over) looked = look(rings, seen);
            guest.join();
            MIG_CHECK(std::move(ran));
            MIG_CHECK(std::move(looked));
            MIG_CHECK(look(rings, seen));
            for (uint64_t i = 0; i < kBusyPages; ++i) {
                if (busy_byte(i) == seen.at(i)) continue;
                return make_error(ErrorKind::Unsupported,
                                  "it misses pages that are written while it is read");
            }
        }
        return {};
    }

    // Whether the log shows what the guest writes, and once only.
    Result<> check_log(DirtyLogMode mode) {
        MIG_CHECK(set_slot(calls_, vm_.borrow(), slot(), KVM_MEM_LOG_DIRTY_PAGES));
        for (int round = 0; round < 2; ++round) {
            MIG_CHECK(run_once());
            MIG_TRY(const util::Bitmap dirty, take_dirty(mode));
            MIG_TRY(const util::Bitmap again, take_dirty(mode));
            if (!dirty.test(kWrittenPage) || again.test(kWrittenPage)) {
                return make_error(ErrorKind::Unsupported, "the dirty log is wrong");
            }
        }
        return set_slot(calls_, vm_.borrow(), slot(), 0);
    }

 private:
    using BusyPages = std::array<std::byte, kBusyPages>;

    std::byte busy_byte(uint64_t busy) const {
        // The guest may be writing to it.
        std::byte& at = ram_->host()[(kWrittenPage + busy) * system::kPageSize];
        return std::atomic_ref(at).load(std::memory_order_relaxed);
    }
    // Reads the pages that the ring names, after they were given back.
    Result<> look(DirtyRings& rings, BusyPages& seen) const {
        util::Bitmap dirty(kLoggedPages);
        MIG_CHECK(rings.harvest_all());
        rings.take(0, dirty);
        for (uint64_t i = 0; i < kBusyPages; ++i) {
            if (dirty.test(kWrittenPage + i)) seen.at(i) = busy_byte(i);
        }
        return {};
    }

    MemorySlot slot() const { return {.id = 0, .gpa = 0, .host = ram_->host()}; }
    // Until an exit: a signal to this thread, whoever sent it, is none.
    Result<> enter_guest() {
        for (;;) {
            auto done = calls_.get(vcpu_.borrow(), KVM_RUN, nullptr, "ioctl(KVM_RUN)");
            if (done || done.error().errnum() != EINTR) return done;
        }
    }
    std::byte written() const { return ram_->host()[kWrittenPage * system::kPageSize]; }
    Result<util::Bitmap> take_dirty(DirtyLogMode mode) {
        util::Bitmap dirty(kLoggedPages);
        MIG_CHECK(get_dirty_log(calls_, vm_.borrow(), slot(), dirty));
        if (mode == DirtyLogMode::Manual) {
            MIG_CHECK(clear_dirty_log(calls_, vm_.borrow(), slot(), 0, kLoggedPages, dirty));
        }
        return dirty;
    }

    const Kvm& kvm_;
    KernelCalls& calls_;
    std::unique_ptr<system::RamBlock> ram_;
    UniqueFd vm_;
    UniqueFd vcpu_;
    util::MappedRegion run_;
};

// In a VM of its own, as manual protection cannot be switched off again.
Result<> probe_with(const Kvm& kvm, DirtyLogMode mode) {
    ProbeGuest guest(kvm);
    MIG_CHECK(guest.create());
    if (mode == DirtyLogMode::None) return guest.run_once();
    if (mode == DirtyLogMode::Manual) MIG_CHECK(guest.enable_manual_protect());
    return guest.check_log(mode);
}

}  // namespace

Result<> probe_dirty_ring(const Kvm& kvm) {
    {
        ProbeGuest guest(kvm);
        MIG_CHECK(guest.create());
        MIG_CHECK(guest.check_ring());
    }
    for (int attempt = 0; attempt < kBusyAttempts; ++attempt) {
        ProbeGuest guest(kvm);
        MIG_CHECK(guest.create());
        MIG_CHECK(guest.check_busy_ring());
    }
    return {};
}

Result<DirtyLogMode> probe_run(const Kvm& kvm) {
    if (kvm.capabilities().dirty_log == DirtyLogMode::Manual &&
        probe_with(kvm, DirtyLogMode::Manual)) {
        return DirtyLogMode::Manual;
    }
    if (probe_with(kvm, DirtyLogMode::Plain)) return DirtyLogMode::Plain;
    MIG_CHECK(probe_with(kvm, DirtyLogMode::None));
    return DirtyLogMode::None;
}

}  // namespace ferry::kvm
