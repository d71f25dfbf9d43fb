// SPDX-License-Identifier: BSD-2-Clause
// The body of a config record, QEMU's VFIOPCIDevice version 1 (docs/devel/pci.rst):
//   be32 2, the version of the PCI part; the shadow of the configuration space;
//   four be32, the levels of the interrupt pins; with MSI-X its table and pending bits.
// All of the record comes from an untrusted peer; its sizes are this device's, not the peer's.
#include <poll.h>

#include <algorithm>

#include "hw/vfio/pci-function.h"
#include "trace-points.h"
#include "util/syscall.h"
#include "util/try.h"
#include "util/wire.h"

namespace ferry::vfio {

namespace {

constexpr uint32_t kPciVersion = 2;
constexpr std::byte kSubsection{0x05};
constexpr std::string_view kDescription = "VFIOPCIDevice";

// Which of the eventfds hold an interrupt that the loop has not got round to.
std::vector<bool> signalled(const std::vector<IrqWiring::Line>& lines) {
    std::vector<pollfd> fds;
    for (const IrqWiring::Line& line : lines) {
        fds.push_back({line ? line->fd().raw() : -1, POLLIN, 0});
    }
    std::vector<bool> out(lines.size());
    if (!util::poll_fds(fds.data(), fds.size(), 0)) return out;
    for (size_t i = 0; i < fds.size(); ++i) out[i] = (fds[i].revents & POLLIN) != 0;
    return out;
}

// A subsection would follow the body at once. There is one, QEMU's for a display, and it holds a
// framebuffer that this VMM does not have.
Result<> refuse_subsection(migration::LoadStream& in) {
    // Not more than one byte that the source need not have sent yet.
    MIG_TRY(const ConstBytes next, in.peek(1));
    if (next.empty() || next[0] != kSubsection) return {};
    MIG_TRY(const ConstBytes head, in.peek(2 + kDescription.size()));
    if (head.size() < 2 + kDescription.size()) return {};
    const auto length = static_cast<size_t>(head[1]);
    if (length <= kDescription.size() ||
        !std::ranges::equal(head.subspan(2), bytes_of(kDescription))) {
        return {};
    }
    return make_error(ErrorKind::Unsupported,
                      "the source sends the state of a display attached to the device; "
                      "use display=off there");
}

}  // namespace

uint32_t PciFunction::config_bytes() const {
    constexpr size_t kVersionAndPins = 5 * sizeof(uint32_t);
    const size_t msix = msix_layout_ ? MsixTable::wire_bytes(msix_layout_->vectors) : 0;
    return static_cast<uint32_t>(kVersionAndPins + config_bytes_ + msix);
}

void PciFunction::save_config(migration::SaveStream& out) {
    util::WireWriter body;
    {
        const std::vector<IrqWiring::Line> msix_lines = irqs_->lines(pci_irq::kMsix);
        const std::lock_guard lock(mutex_);
        const bool asserted = intx_asserted_;
        body.be32(kPciVersion).bytes(config_.image());
        for (unsigned pin = 1; pin <= 4; ++pin) {
            body.be32(asserted && pin == config_.interrupt_pin() ? 1 : 0);
        }
        if (msix_) {
            MsixTable table = *msix_;
            if (config_.msix_enabled()) {
                const std::vector<bool> waiting = signalled(msix_lines);
                for (unsigned i = 0; i < waiting.size(); ++i) {
                    if (waiting[i]) table.set_pending(i, true);
                }
            }
            table.save(body);
        }
    }
    trace::vfio_pci_save_config(setup_.env.trace, setup_.name, body.size());
    out.bytes(body.view());
}

Result<PciFunction::Loaded> PciFunction::read_state(migration::LoadStream& in) const {
    MIG_TRY(const uint32_t version, in.be32());
    if (version > kPciVersion) {
        return make_error(ErrorKind::Protocol, "PCI state of version {}, up to {} is known",
                          static_cast<int32_t>(version), kPciVersion);
    }
    Loaded loaded;
    loaded.image.resize(config_bytes_);
    MIG_CHECK(in.bytes(loaded.image));
    for (bool& pin : loaded.pins) {
        MIG_TRY(const uint32_t level, in.be32());
        if (level > 1) {
            return make_error(ErrorKind::Protocol,
                              "an interrupt pin of level {}; has the source's device a "
                              "configuration space of other than {} bytes?",
                              level, config_bytes_);
        }
        pin = level == 1;
    }
    if (msix_layout_) {
        loaded.msix.resize(MsixTable::wire_bytes(msix_layout_->vectors));
        MIG_CHECK(in.bytes(loaded.msix), "MSI-X table");
    }
    MIG_CHECK(refuse_subsection(in));
    return loaded;
}

Result<> PciFunction::read_config(migration::LoadStream& in) {
    MIG_TRY(loaded_, read_state(in), "PCI state");
    return {};
}

Result<> PciFunction::apply_config() {
    const Loaded loaded = std::exchange(loaded_, {});
    uint32_t kind = kPciIrqKinds;
    {
        const std::lock_guard lock(mutex_);
        if (settling_) {
            return make_error(ErrorKind::InvalidState,
                              "the guest uses the device whose state is loaded");
        }
        MIG_CHECK(config_.load(loaded.image), "PCI state");
        if (msix_) msix_->load(loaded.msix);
        used_vectors_.assign(used_vectors_.size(), false);
        note_used_vectors();
        const uint8_t pin = config_.interrupt_pin();
        intx_asserted_ = pin != 0 && loaded.pins[pin - 1];
        intx_waits_for_access_ = intx_asserted_;
        pin_loaded_ = true;
        command_changed_ = true;
        kind = irq_kind();
    }
    trace::vfio_pci_load_config(setup_.env.trace, setup_.name, kind);
    // A guest whose device does not interrupt hangs: better to fail here, where the source still
    // has it.
    MIG_CHECK(settle(), "PCI state");
    return {};
}

}  // namespace ferry::vfio
