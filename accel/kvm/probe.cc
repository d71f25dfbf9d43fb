// SPDX-License-Identifier: BSD-2-Clause
#include "accel/kvm/probe.h"

#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <span>
#include <thread>
#include <vector>

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

// The ring is also watched from outside while the guest writes, as a migration does: that, and not
// that it lists a page at all, is what rings in software have been seen to get wrong.
constexpr uint64_t kBusyRamBytes = 256 * system::kPageSize;
constexpr uint64_t kBusyFirst = 0x10, kBusyEnd = 0xf0;  // pages
//        mov $300,%cx
// round: mov $0x1000,%ax
// page:  mov %ax,%ds; incb 0; add $0x100,%ax; cmp $0xf000,%ax; jne page
//        loop round; outb %al,$0x10; jmp .
constexpr std::array<uint8_t, 26> kBusyCode{0xb9, 0x2c, 0x01, 0xb8, 0x00, 0x10,  0x8e, 0xd8, 0xfe,
                                            0x06, 0x00, 0x00, 0x05, 0x00, 0x01,  0x3d, 0x00, 0xf0,
                                            0x75, 0xf2, 0xe2, 0xed, 0xe6, kPort, 0xeb, 0xfe};

class ProbeGuest {
 public:
    explicit ProbeGuest(const Kvm& kvm) : ProbeGuest(kvm, kvm.capabilities().dirty_ring_entries) {}
    ProbeGuest(const Kvm& kvm, uint32_t ring_entries) : kvm_(kvm), calls_(kvm.calls()) {
        host_.dirty_ring_entries = ring_entries;
    }

    Result<> create(std::span<const uint8_t> code = kCode, uint64_t ram_bytes = kRamBytes) {
        MIG_TRY(ram_, system::RamBlock::create_memfd("kvm-probe", ram_bytes));
        std::memcpy(ram_->host().data() + kCodeAt, code.data(), code.size());
        MIG_TRY(vm_, kvm_.create_vm());
        MIG_CHECK(set_tss_address(calls_, vm_.borrow()));
        if (host_.dirty_log == DirtyLogMode::Ring) {
            MIG_CHECK(enable_dirty_rings(calls_, vm_.borrow(), host_));
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
        DirtyRings rings(calls_, vm_.borrow(), host_.dirty_ring_entries);
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

    // Whether a copy that is kept up by the ring alone, while the guest writes, is right in the
    // end.
    Result<> check_busy_ring() {
        DirtyRings rings(calls_, vm_.borrow(), host_.dirty_ring_entries);
        rings.watch({slot()});
        MIG_CHECK(rings.add(vcpu_.borrow()));
        MIG_CHECK(set_slot(calls_, vm_.borrow(), slot(), KVM_MEM_LOG_DIRTY_PAGES));
        std::vector<std::byte> copy(kBusyEnd);
        const auto keep_up = [&]() -> Result<> {
            util::Bitmap dirty(slot().pages());
            MIG_CHECK(rings.harvest_all());
            rings.take(0, dirty);
            for (uint64_t page = kBusyFirst; page < kBusyEnd; ++page) {
                if (dirty.test(page)) copy[page] = first_byte(page);
            }
            return {};
        };
        Result<> ran;
        std::atomic<bool> over = false;
        MIG_TRY(auto cpu, util::start_thread("kvm/probe", [&](const std::stop_token&) {
                    ran = run_to_its_port(rings);
                    over = true;
                }));
        Result<> kept;
        while (!over && kept) kept = keep_up();
        cpu.join();
        MIG_CHECK(std::move(ran));
        MIG_CHECK(std::move(kept));
        MIG_CHECK(keep_up());
        for (uint64_t page = kBusyFirst; page < kBusyEnd; ++page) {
            if (copy[page] == first_byte(page)) continue;
            return make_error(ErrorKind::Unsupported, "it loses pages that are written meanwhile");
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
    MemorySlot slot() const { return {.id = 0, .gpa = 0, .host = ram_->host()}; }
    // Until an exit: a signal to this thread, whoever sent it, is none.
    Result<> enter_guest() {
        for (;;) {
            auto done = calls_.get(vcpu_.borrow(), KVM_RUN, nullptr, "ioctl(KVM_RUN)");
            if (done || done.error().errnum() != EINTR) return done;
        }
    }
    Result<> run_to_its_port(DirtyRings& rings) {
        // More than one for each page that is written, and that often in vain, means never.
        constexpr unsigned kMostExits = 1'000'000;
        constexpr unsigned kMostIdle = 1000;  // full again before anything was written
        unsigned idle = 0;
        unsigned before = 0;
        for (unsigned exits = 0; exits < kMostExits && idle < kMostIdle; ++exits) {
            MIG_CHECK(enter_guest());
            // NOLINTNEXTLINE(cppcoreguidelines-pro-type-reinterpret-cast): the kernel maps it
            const auto& run = *reinterpret_cast<const kvm_run*>(run_.bytes().data());
            if (run.exit_reason == KVM_EXIT_IO && run.io.port == kPort) return {};
            if (run.exit_reason != KVM_EXIT_DIRTY_RING_FULL) {
                return make_error(ErrorKind::Unsupported, "ended with exit reason {}",
                                  run.exit_reason);
            }
            MIG_CHECK(rings.harvest(0));
            unsigned sum = 0;
            for (uint64_t page = kBusyFirst; page < kBusyEnd; ++page) {
                sum += static_cast<unsigned>(first_byte(page));
            }
            idle = sum == before ? idle + 1 : 0;
            before = sum;
        }
        return make_error(ErrorKind::Unsupported, "it stays full");
    }
    std::byte first_byte(uint64_t page) const {
        const std::atomic_ref byte(ram_->host()[page * system::kPageSize]);
        return byte.load(std::memory_order_relaxed);
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
    Capabilities host_ = kvm_.capabilities();
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
    ProbeGuest guest(kvm);
    MIG_CHECK(guest.create());
    MIG_CHECK(guest.check_ring());
    // The smallest ring that any host has: it is full again and again.
    constexpr uint32_t kSmallest = 256;
    ProbeGuest busy(kvm, kSmallest);
    if (busy.create(kBusyCode, kBusyRamBytes)) return busy.check_busy_ring();
    ProbeGuest roomy(kvm);
    MIG_CHECK(roomy.create(kBusyCode, kBusyRamBytes));
    return roomy.check_busy_ring();
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
