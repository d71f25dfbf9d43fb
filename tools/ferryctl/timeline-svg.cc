// SPDX-License-Identifier: BSD-2-Clause
#include "tools/ferryctl/timeline-svg.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

namespace ferry::ferryctl {

namespace {

constexpr double kNsPerMs = 1e6;
// Pixels.
constexpr double kLabelWidth = 300, kChartWidth = 800, kRight = 20;
constexpr double kTop = 60, kRowHeight = 22, kBarHeight = 16, kBottom = 40;
constexpr double kThinnestBar = 1;  // something of each step is seen

struct StepColour {
    std::string_view step;
    std::string_view colour;
};
// Steps of one kind look alike on both sides.
constexpr std::array kColours = {
    StepColour{"quiesce", "#d9a441"}, StepColour{"stop", "#c0504d"},
    StepColour{"save", "#4f81bd"},    StepColour{"load", "#4bacc6"},
    StepColour{"config", "#8064a2"},  StepColour{"validate", "#7f7f7f"},
    StepColour{"start", "#6aa84f"},   StepColour{"prepare-start", "#93c47d"},
};
constexpr std::string_view kOtherColour = "#b0b0b0";

std::string_view colour_of(std::string_view step) {
    const auto found = std::ranges::find(kColours, step, &StepColour::step);
    return found == kColours.end() ? kOtherColour : found->colour;
}

// Names come from the VM: they must not end the text that they stand in. XML has no way to write
// control characters at all.
std::string escaped(std::string_view text) {
    std::string out;
    for (const char c : text) {
        switch (c) {
            case '&': out += "&amp;"; break;
            case '<': out += "&lt;"; break;
            case '>': out += "&gt;"; break;
            case '"': out += "&quot;"; break;
            default: out += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
        }
    }
    return out;
}

// 1, 2 or 5 times a power of ten, so that about ten of them fit.
double tick_ms(double length_ms) {
    const double rough = length_ms / 10;
    const double power = std::pow(10.0, std::floor(std::log10(rough)));
    for (const double factor : {1.0, 2.0, 5.0}) {
        if (factor * power >= rough) return factor * power;
    }
    return 10 * power;
}

class Picture {
 public:
    Picture(std::vector<PauseRow> rows, Pause::Clocks clocks)
        : rows_(std::move(rows)),
          clocks_(clocks),
          length_ms_(static_cast<double>(pause_length_ns(rows_)) / kNsPerMs),
          bottom_(kTop + kRowHeight * static_cast<double>(rows_.size())) {}

    std::string draw(const std::string& title) {
        const double width = kLabelWidth + kChartWidth + kRight;
        const double height = bottom_ + kBottom;
        out_ = fmt::format(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0:.0f}\" height=\"{1:.0f}\" "
            "viewBox=\"0 0 {0:.0f} {1:.0f}\" font-family=\"sans-serif\" font-size=\"12\">\n"
            "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
            width, height);
        text(10, 20, "start", title);
        text(10, 38, "start", fmt::format("The pause, {:.2f} ms", length_ms_));
        axis();
        for (size_t i = 0; i < rows_.size(); ++i) row(i);
        if (clocks_ == Pause::Clocks::Separate) {
            text(10, bottom_ + 32, "start",
                 "The two ends have different clocks: each begins at a zero of its own.");
        }
        return out_ + "</svg>\n";
    }

 private:
    double x_of(double ms) const { return kLabelWidth + ms / length_ms_ * kChartWidth; }

    void text(double x, double y, std::string_view anchor, std::string_view words) {
        out_ += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\">{}</text>\n", x, y,
                            anchor, escaped(words));
    }

    void axis() {
        const double tick = tick_ms(length_ms_);
        for (int i = 0; i * tick <= length_ms_; ++i) {
            const double x = x_of(i * tick);
            out_ += fmt::format(
                "<line x1=\"{0:.1f}\" y1=\"{1:.1f}\" x2=\"{0:.1f}\" y2=\"{2:.1f}\" "
                "stroke=\"#dddddd\"/>\n",
                x, kTop - 4, bottom_);
            text(x, bottom_ + 14, "middle", fmt::format("{:g} ms", i * tick));
        }
    }

    void row(size_t index) {
        const PauseRow& row = rows_[index];
        const double y = kTop + kRowHeight * static_cast<double>(index);
        const double begin = static_cast<double>(row.begin_ns) / kNsPerMs;
        const double lasted = static_cast<double>(row.end_ns - row.begin_ns) / kNsPerMs;
        const double x = x_of(begin);
        const double width = std::max(x_of(begin + lasted) - x, kThinnestBar);
        const std::string name = fmt::format("{}: {} {}", row.side, row.step->who, row.step->step);
        text(kLabelWidth - 8, y + kBarHeight - 3, "end", name);
        const std::string bytes = row.step->bytes == 0 ? "" : ", " + bytes_text(row.step->bytes);
        out_ += fmt::format(
            "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.0f}\" fill=\"{}\">"
            "<title>{}: {:.2f} ms from {:.2f} ms{}</title></rect>\n",
            x, y, width, kBarHeight, colour_of(row.step->step), escaped(name), lasted, begin,
            escaped(bytes));
    }

    std::vector<PauseRow> rows_;
    Pause::Clocks clocks_;
    double length_ms_;
    double bottom_;
    std::string out_;
};

}  // namespace

std::string pause_svg(const Pause& pause, const std::string& title) {
    const auto clocks = pause.source.empty() ? Pause::Clocks::Shared : pause.clocks;
    return Picture(pause_rows(pause), clocks).draw(title);
}

}  // namespace ferry::ferryctl
