// SPDX-License-Identifier: BSD-2-Clause
#include "hw/vfio/irq.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "util/try.h"

namespace ferry::vfio {

namespace {

// One more than the last vector that is wanted.
size_t end_of(const std::vector<bool>& vectors) {
    const auto last = std::find(vectors.rbegin(), vectors.rend(), true);
    return static_cast<size_t>(vectors.rend() - last);
}

}  // namespace

std::shared_ptr<IrqWiring> IrqWiring::create(system::MainLoop& loop, VfioDeviceIo& io, Infos infos,
                                             system::InterruptRoutes* routes,
                                             std::optional<unsigned> input, Fired fired) {
    return std::shared_ptr<IrqWiring>(
        new IrqWiring(loop, io, infos, routes, input, std::move(fired)));
}

Result<> IrqWiring::apply(const Wish& wish) {
    if (applied_.index && applied_.index != wish.index) {
        const uint32_t before = *applied_.index;
        MIG_CHECK(disable());
        // What cannot be given back now is at the next change.
        (void)route({}).has_value();
        retire_lines(before);
    }
    if (!wish.index) return {};
    if (applied_.index) return add_vectors(wish);
    auto enabled = enable(wish);
    if (!enabled) retire_lines(*wish.index);
    return enabled;
}

Result<> IrqWiring::disable() {
    MIG_CHECK(io_.disable_irqs(*applied_.index));
    applied_ = {};
    std::shared_ptr<RoutedPin> pin;
    {
        const std::lock_guard lock(mutex_);
        pin = std::exchange(pin_, nullptr);
    }
    return {};
}

Result<> IrqWiring::enable(const Wish& wish) {
    const uint32_t limit = infos_[*wish.index].count;
    // At least one vector, even without an eventfd: devices notice when they are switched to MSI-X.
    const size_t needed = std::max<size_t>(end_of(wish.vectors), 1);
    if (needed > limit) {
        return make_error(ErrorKind::InvalidArgument, "{} interrupts; the driver has {}", needed,
                          limit);
    }
    if (!infos_[*wish.index].noresize || needed == limit) return connect(wish, needed);
    // Such a driver cannot add vectors later: all at once, or as many as the host can spare.
    auto all = connect(wish, limit);
    if (all || all.error().errnum() != ENOSPC) return all;
    return connect(wish, needed);
}

Result<> IrqWiring::connect(const Wish& wish, size_t count) {
    const uint32_t index = *wish.index;
    std::vector<BorrowedFd> fds(count);
    for (uint32_t i = 0; i < wish.vectors.size(); ++i) {
        if (!wish.vectors[i]) continue;
        MIG_TRY(fds[i], line_fd(index, i));
    }
    std::shared_ptr<RoutedPin> pin;
    if (index == pci_irq::kIntx && fds[0].valid()) pin = route_pin(lines(index)[0]);
    MIG_CHECK(io_.set_irq_eventfds(index, 0, fds));
    applied_.index = index;
    applied_.vectors = wish.vectors;
    applied_.vectors.resize(count);
    if (pin) finish_pin(std::move(pin));
    return {};
}

Result<> IrqWiring::add_vectors(const Wish& wish) {
    const uint32_t index = *wish.index;
    const size_t end = end_of(wish.vectors);
    if (end > applied_.vectors.size() && infos_[index].noresize) return reconnect(wish);
    for (uint32_t i = 0; i < end; ++i) {
        if (!wish.vectors[i] || (i < applied_.vectors.size() && applied_.vectors[i])) continue;
        if (i >= infos_[index].count) {
            return make_error(ErrorKind::InvalidArgument, "interrupt {}; the driver has {}", i,
                              infos_[index].count);
        }
        MIG_TRY(const BorrowedFd fd, line_fd(index, i));
        MIG_CHECK(io_.set_irq_eventfds(index, i, std::span(&fd, 1)));
        if (i >= applied_.vectors.size()) applied_.vectors.resize(i + 1);
        applied_.vectors[i] = true;
    }
    return {};
}

Result<> IrqWiring::reconnect(const Wish& wish) {
    const std::vector<bool> before = applied_.vectors;
    MIG_CHECK(disable());
    MIG_CHECK(enable(wish));
    // An interrupt in between is lost, and a driver may wait for it for ever. One too many it can
    // stand.
    const std::vector<Line> all = lines(*wish.index);
    for (size_t i = 0; i < before.size(); ++i) {
        if (before[i]) all[i]->signal();
    }
    return {};
}

std::shared_ptr<IrqWiring::RoutedPin> IrqWiring::route_pin(const Line& event) {
    if (routes_ == nullptr || !input_) return nullptr;
    auto acknowledged = util::EventFd::create();
    if (!acknowledged) return nullptr;
    auto connection = routes_->connect_input(*input_, *event, *acknowledged);
    if (!connection) return nullptr;
    return std::make_shared<RoutedPin>(
        RoutedPin{event, std::move(*acknowledged), std::move(*connection)});
}

void IrqWiring::finish_pin(std::shared_ptr<RoutedPin> pin) {
    if (io_.set_irq_unmask_eventfd(pci_irq::kIntx, 0, pin->acknowledged.fd())) {
        const std::lock_guard lock(mutex_);
        pin_ = std::move(pin);
        return;
    }
    // If it has fired meanwhile, it did so into the guest, and the driver has masked it. One too
    // many does no harm.
    const Line event = pin->event;
    pin.reset();
    event->signal();
}

IrqWiring::Line IrqWiring::routed_intx() const {
    const std::lock_guard lock(mutex_);
    return pin_ ? pin_->event : nullptr;
}

Result<> IrqWiring::route(std::span<const std::optional<system::MsiMessage>> messages) {
    if (!messages_) return {};
    std::vector<std::optional<system::MsiRoutes::Vector>> wanted(messages.size());
    const std::vector<Line> known =
        messages.empty() ? std::vector<Line>{} : lines(applied_.index.value_or(pci_irq::kMsix));
    for (size_t i = 0; i < std::min(messages.size(), known.size()); ++i) {
        if (messages[i] && known[i]) wanted[i] = {.event = known[i], .message = *messages[i]};
    }
    return messages_->connect(wanted);
}

Result<> IrqWiring::unmask_intx() {
    if (applied_.index != pci_irq::kIntx) return {};
    return io_.set_irq_masked(pci_irq::kIntx, 0, false);
}

Result<BorrowedFd> IrqWiring::line_fd(uint32_t index, uint32_t vector) {
    {
        const std::lock_guard lock(mutex_);
        auto& lines = lines_[index];
        if (vector < lines.size() && lines[vector]) return lines[vector]->fd.fd();
    }
    MIG_TRY(util::EventFd fd, util::EventFd::create());
    auto line = std::make_shared<Watched>(Watched{std::move(fd), {}});
    watch_later(index, vector, line);
    const std::lock_guard lock(mutex_);
    auto& lines = lines_[index];
    if (vector >= lines.size()) lines.resize(vector + 1);
    lines[vector] = line;
    return line->fd.fd();
}

void IrqWiring::watch_later(uint32_t index, uint32_t vector, const std::shared_ptr<Watched>& line) {
    // Signals that come before the watch wait in the eventfd.
    loop_.post([weak = weak_from_this(), index, vector, line] {
        const auto self = weak.lock();
        if (!self) return;
        line->watch = self->loop_.watch_fd(line->fd.fd(), system::MainLoop::FdEvent::Readable,
                                           [wiring = self.get(), index, vector, fd = &line->fd] {
                                               wiring->fired_(index, vector, *fd);
                                           });
    });
}

void IrqWiring::retire_lines(uint32_t index) {
    {
        const std::lock_guard lock(mutex_);
        for (auto& line : lines_[index]) {
            if (!line) continue;
            // What came before the change is not for whoever connects the index next.
            line->fd.consume();
            retired_.push_back(std::move(line));
        }
        lines_[index].clear();
    }
    loop_.post([weak = weak_from_this()] {
        const auto self = weak.lock();
        if (!self) return;
        std::unique_lock lock(self->mutex_);
        const auto gone = std::exchange(self->retired_, {});
        lock.unlock();
        // Somebody may still hold a line for a moment, but no watch outlives this.
        for (const auto& line : gone) line->watch.reset();
    });
}

std::vector<IrqWiring::Line> IrqWiring::lines(uint32_t index) const {
    const std::lock_guard lock(mutex_);
    std::vector<Line> out;
    out.reserve(lines_[index].size());
    for (const auto& line : lines_[index]) {
        out.push_back(line ? Line(line, &line->fd) : nullptr);
    }
    return out;
}

}  // namespace ferry::vfio
