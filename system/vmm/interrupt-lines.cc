// SPDX-License-Identifier: BSD-2-Clause
#include "system/vmm/interrupt-lines.h"

#include <algorithm>
#include <set>

#include "util/try.h"

namespace ferry::vmm {

namespace {

// "ioapic" names "/machine/unattached/ioapic".
bool names(std::string_view given, std::string_view path) {
    if (given.empty()) return false;
    if (given.starts_with('/')) return given == path;
    return path.ends_with(given) && path[path.size() - given.size() - 1] == '/';
}

}  // namespace

unsigned pci_interrupt_line(MachineType machine, pci::PciAddress address, unsigned pin) {
    const unsigned swizzled = address.device + pin - 1;
    if (machine == MachineType::Q35) {
        constexpr unsigned kFirst = 16, kCount = 8;  // PIRQA to PIRQH of an ICH9
        return kFirst + swizzled % kCount;
    }
    // Where firmware usually puts PIRQA to PIRQD of a PIIX.
    constexpr std::array kPiix = {10U, 10U, 11U, 11U};
    return kPiix[swizzled % kPiix.size()];
}

class InterruptLines::Source {
 public:
    Source(InterruptLines& lines, Wire wire) : lines_(lines), wire_(std::move(wire)) {
        const std::lock_guard lock(lines_.mutex_);
        lines_.wires_.push_back(&wire_);
    }
    ~Source() { lines_.disconnect(wire_); }
    Source(const Source&) = delete;
    Source& operator=(const Source&) = delete;
    void set(bool level) {
        const std::lock_guard lock(lines_.mutex_);
        lines_.set(wire_, level);
    }

 private:
    InterruptLines& lines_;
    Wire wire_;
};

void InterruptLines::set_controller(Controller controller) {
    const std::lock_guard lock(mutex_);
    controller_ = std::move(controller);
}

isa::IrqLine InterruptLines::connect(std::string path, unsigned number, unsigned line) {
    auto source = std::make_shared<Source>(*this, Wire{std::move(path), number, line});
    return [source = std::move(source)](bool level) { source->set(level); };
}

void InterruptLines::disconnect(Wire& wire) {
    const std::lock_guard lock(mutex_);
    if (wire.level) set(wire, false);
    std::erase(wires_, &wire);
}

// With the lock held.
void InterruptLines::set(Wire& wire, bool level) {
    unsigned& holders = holders_[wire.line];
    const bool line_before = holders > 0;
    const bool changes = wire.level != level;
    if (changes) {
        wire.level = level;
        holders += level ? 1 : -1U;
    }
    const bool line_after = holders > 0;
    if (controller_) controller_(wire.line, line_after);
    for (const auto& watch : watches_) {
        if (watch->side == Side::Out) {
            if (changes && watch->path == wire.path) watch->observer(wire.number, level);
        } else if (line_before != line_after) {
            watch->observer(wire.line, line_after);
        }
    }
}

Result<std::string> InterruptLines::resolve(std::string_view device, Side side) {
    std::set<std::string> found;
    if (side == Side::In) {
        if (names(device, kControllerPath)) found.insert(kControllerPath);
    } else {
        const std::lock_guard lock(mutex_);
        for (const Wire* wire : wires_) {
            if (names(device, wire->path)) found.insert(wire->path);
        }
    }
    if (found.size() == 1) return *found.begin();
    const std::string_view puts = side == Side::In ? "inputs" : "outputs";
    if (found.empty()) {
        return make_error(ErrorKind::InvalidArgument, "No device '{}' with interrupt {}", device,
                          puts);
    }
    return make_error(ErrorKind::InvalidArgument, "Several devices '{}' have interrupt {}", device,
                      puts);
}

util::Registration InterruptLines::watch(const std::string& device, Side side, Observer observer) {
    auto watch = std::make_shared<Watch>(device, side, std::move(observer));
    const std::lock_guard lock(mutex_);
    if (side == Side::In) {
        for (unsigned line = 0; line < kLines; ++line) {
            if (holders_[line] > 0) watch->observer(line, true);
        }
    } else {
        for (const Wire* wire : wires_) {
            if (wire->path == device && wire->level) watch->observer(wire->number, true);
        }
    }
    watches_.push_back(watch);
    return util::Registration([this, watch = std::move(watch)] {
        const std::lock_guard inner(mutex_);
        std::erase(watches_, watch);
    });
}

Result<> InterruptLines::set_input(std::string_view device, unsigned number, bool level) {
    MIG_TRY(const std::string path, resolve(device, Side::In));
    if (number >= kLines) {
        return make_error(ErrorKind::InvalidArgument, "'{}' has inputs 0 to {}, not {}", path,
                          kLines - 1, number);
    }
    const std::lock_guard lock(mutex_);
    Wire wire{{}, 0, number, driven_[number]};
    set(wire, level);
    driven_[number] = level;
    return {};
}

}  // namespace ferry::vmm
