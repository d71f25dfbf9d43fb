// SPDX-License-Identifier: BSD-2-Clause
#include "tools/ferryctl/progress.h"

#include <fmt/format.h>

#include <algorithm>

#include "tools/ferryctl/qmp-link.h"
#include "tools/ferryctl/timeline.h"

namespace ferry::ferryctl {

namespace {

constexpr size_t kBarWidth = 24;

std::string vfio_text(const Json& info) {
    const auto vfio = info.find("vfio");
    if (vfio == info.end() || !vfio->is_object()) return "";
    return fmt::format(", devices {}", bytes_text(number_of(*vfio, "transferred")));
}

// What the guest writes against what goes out, and how long it would stand still.
std::string guest_text(const Json& info, const Json& ram) {
    std::string out;
    if (const uint64_t pages = number_of(ram, "dirty-pages-rate"); pages != 0) {
        const uint64_t page_bytes = number_of(ram, "page-size");
        out = fmt::format(", guest writes {}/s", bytes_text(pages * page_bytes));
    }
    if (info.contains("expected-downtime")) {
        out += fmt::format(", pause about {} ms", number_of(info, "expected-downtime"));
    }
    return out;
}

// Whoever has been inside one call for a while holds everybody up.
std::string waiting_text(const Json& info) {
    constexpr uint64_t kWorthMentioningMs = 1000;
    const auto calls = info.find("x-pending-calls");
    if (calls == info.end() || !calls->is_array() || calls->empty()) return "";
    const Json& oldest = calls->front();
    const uint64_t age = number_of(oldest, "pending-ms");
    if (age < kWorthMentioningMs) return "";
    return fmt::format(", waiting for {}: {} since {} s", text_of(oldest, "who", "?"),
                       text_of(oldest, "call", "?"), age / 1000);
}

}  // namespace

std::string progress_line(const Json& info) {
    const std::string status = text_of(info, "status", "none");
    const auto ram = info.find("ram");
    if (ram == info.end() || !ram->is_object()) return status + waiting_text(info);
    const uint64_t total = number_of(*ram, "total");
    const uint64_t remaining = std::min(number_of(*ram, "remaining"), total);
    const double share =
        total == 0 ? 1.0 : static_cast<double>(total - remaining) / static_cast<double>(total);
    const auto filled = static_cast<size_t>(share * kBarWidth);
    const Json& rate = ram->contains("mbps") ? (*ram)["mbps"] : Json(0);
    return fmt::format("[{}{}] {:3.0f}%  {} left, {:.0f} Mbit/s, pass {}{}{}  {}{}",
                       std::string(filled, '#'), std::string(kBarWidth - filled, '-'), share * 100,
                       bytes_text(remaining), rate.is_number() ? rate.get<double>() : 0.0,
                       number_of(*ram, "dirty-sync-count"), vfio_text(info), guest_text(info, *ram),
                       status, waiting_text(info));
}

std::string summary_text(const Json& info) {
    std::string out = fmt::format("Migration {} after {} ms", text_of(info, "status", "?"),
                                  number_of(info, "total-time"));
    const auto ram = info.find("ram");
    if (ram != info.end() && ram->is_object()) {
        out +=
            fmt::format(", {} sent{}", bytes_text(number_of(*ram, "transferred")), vfio_text(info));
    }
    if (info.contains("downtime")) {
        out += fmt::format(", downtime {} ms", number_of(info, "downtime"));
    }
    return out + "\n";
}

}  // namespace ferry::ferryctl
