// SPDX-License-Identifier: BSD-2-Clause
#include "hw/vfio/soft-irqs.h"

#include <cerrno>

#include "util/syscall.h"
#include "util/try.h"

namespace ferry::vfio {

namespace {

void signal(BorrowedFd eventfd) {
    if (!eventfd.valid()) return;
    const uint64_t one = 1;
    // Fails only when the counter is full, that is, when it is signalled anyway.
    (void)util::write_fd(eventfd, std::as_bytes(std::span(&one, 1)), "write(eventfd)").has_value();
}

}  // namespace

SoftIrqs::SoftIrqs(const hw::DeviceModel& model) {
    const uint32_t count = model.info().num_irqs;
    for (uint32_t index = 0; index < count; ++index) {
        const IrqInfo info = model.irq_info(index);
        indexes_.push_back({info, std::vector<Vector>(info.count)});
    }
}

Result<SoftIrqs::Index*> SoftIrqs::find(uint32_t index) {
    if (index >= indexes_.size()) return make_errno(EINVAL, "interrupt index {}", index);
    return &indexes_[index];
}

Result<IrqInfo> SoftIrqs::info(uint32_t index) const {
    if (index >= indexes_.size()) return make_errno(EINVAL, "interrupt index {}", index);
    return indexes_[index].info;
}

Result<> SoftIrqs::set_eventfds(uint32_t index, uint32_t start, std::span<const BorrowedFd> fds) {
    const std::lock_guard lock(mutex_);
    MIG_TRY(Index* const at, find(index));
    if (!at->info.eventfd || fds.empty() || start >= at->vectors.size() ||
        fds.size() > at->vectors.size() - start) {
        return make_errno(EINVAL, "interrupt index {}: eventfds for {} vectors from {}, it has {}",
                          index, fds.size(), start, at->vectors.size());
    }
    std::vector<UniqueFd> copies(fds.size());
    for (size_t i = 0; i < fds.size(); ++i) {
        if (!fds[i].valid()) continue;
        MIG_TRY(copies[i], util::duplicate(fds[i]), "interrupt index {}, vector {}", index,
                start + i);
    }
    for (size_t i = 0; i < fds.size(); ++i) {
        at->vectors[start + i].eventfd = std::move(copies[i]);
    }
    return {};
}

Result<> SoftIrqs::disable(uint32_t index) {
    const std::lock_guard lock(mutex_);
    MIG_TRY(Index* const at, find(index));
    for (Vector& vector : at->vectors) vector = {};
    return {};
}

Result<> SoftIrqs::set_masked(uint32_t index, uint32_t vector, bool masked) {
    const std::lock_guard lock(mutex_);
    MIG_TRY(Index* const at, find(index));
    if (vector >= at->vectors.size()) {
        return make_errno(EINVAL, "interrupt index {} has no vector {}", index, vector);
    }
    if (!at->info.maskable) {
        return Error(ErrorKind::Unsupported, fmt::format("interrupt index {} has no mask", index),
                     ENOTTY);
    }
    Vector& target = at->vectors[vector];
    target.masked = masked;
    if (masked || !std::exchange(target.pending, false)) return {};
    signal(target.eventfd.borrow());
    target.masked = at->info.automasked;
    return {};
}

void SoftIrqs::raise(uint32_t irq_index, uint32_t vector) {
    const std::lock_guard lock(mutex_);
    if (irq_index >= indexes_.size() || vector >= indexes_[irq_index].vectors.size()) return;
    Index& irqs = indexes_[irq_index];
    Vector& target = irqs.vectors[vector];
    if (target.masked) {
        target.pending = true;
    } else {
        signal(target.eventfd.borrow());
        // As the kernel does it for level-triggered interrupts, which would storm otherwise.
        if (irqs.info.automasked && target.eventfd.valid()) target.masked = true;
    }
}

}  // namespace ferry::vfio
