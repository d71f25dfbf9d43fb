// SPDX-License-Identifier: BSD-2-Clause
#include "tools/ferryctl/migrate.h"

#include <fcntl.h>
#include <poll.h>

#include <charconv>
#include <ostream>

#include "tools/ferryctl/progress.h"
#include "tools/ferryctl/timeline-svg.h"
#include "tools/ferryctl/timeline.h"
#include "util/syscall.h"
#include "util/try.h"

namespace ferry::ferryctl {

namespace {

constexpr int kTerminalPeriodMs = 200;
constexpr int kFilePeriodMs = 1000;
constexpr int kQuietPeriodMs = 100;

class Migrator {
 public:
    Migrator(const Options& options, QmpLink& source, Console& console)
        : options_(options), source_(source), console_(console) {}

    Result<> run() {
        if (options_.svg) {
            // Nothing is begun for a picture that can't be written.
            MIG_TRY(svg_, util::open_file(*options_.svg, O_WRONLY | O_CREAT | O_TRUNC, 0644),
                    "--svg");
        }
        if (options_.destination) {
            MIG_TRY(destination_, QmpLink::connect(*options_.destination, console_.try_again),
                    "destination");
        }
        MIG_CHECK(set_up());
        MIG_CHECK(source_.call("migrate", {{"uri", options_.argument}}));
        MIG_TRY(const Json info, follow(source_), "following the migration");
        if (text_of(info, "status") == "completed") MIG_CHECK(await_destination());
        MIG_CHECK(tell(info));
        return outcome(info);
    }

 private:
    Result<> set_up() {
        if (!options_.capabilities.empty()) {
            Json list = Json::array();
            for (const std::string& name : options_.capabilities) {
                list.push_back({{"capability", name}, {"state", true}});
            }
            const Json arguments = {{"capabilities", list}};
            MIG_CHECK(source_.call("migrate-set-capabilities", arguments));
            if (destination_) {
                MIG_CHECK(destination_->call("migrate-set-capabilities", arguments), "destination");
            }
        }
        if (!options_.parameters.empty()) {
            Json arguments = Json::object();
            for (const auto& [name, text] : options_.parameters) {
                arguments[name] = value_from_text(text);
            }
            MIG_CHECK(source_.call("migrate-set-parameters", arguments));
        }
        return {};
    }

    // Until it is over, showing each answer.
    Result<Json> follow(QmpLink& link) {
        const bool shown = options_.progress == Progress::Shown && options_.format == Format::Text;
        const bool terminal = console_.kind == Console::Kind::Terminal;
        const int period = !shown ? kQuietPeriodMs : terminal ? kTerminalPeriodMs : kFilePeriodMs;
        for (;;) {
            MIG_TRY(Json info, link.call("query-migrate"));
            const std::string status = text_of(info, "status");
            const bool over = status == "completed" || status == "failed" || status == "cancelled";
            if (shown) show(progress_line(info), over);
            if (over) return info;
            MIG_CHECK(wait(link, period));
        }
    }

    // Until it is time to look again. An interruption cancels the migration, once; how that ends
    // is still followed.
    Result<> wait(QmpLink& link, int period) {
        pollfd interrupt{console_.interrupt_fd, POLLIN, 0};
        const nfds_t count = interrupted_ || console_.interrupt_fd < 0 ? 0 : 1;
        MIG_TRY(const int ready, util::poll_fds(&interrupt, count, period));
        if (ready == 0) return {};
        interrupted_ = true;
        MIG_CHECK(link.call("migrate_cancel"), "cancelling");
        return {};
    }

    void show(const std::string& line, bool last) {
        if (console_.kind == Console::Kind::Terminal) {
            console_.out << '\r' << line.substr(0, console_.columns - 1) << "\033[K"
                         << (last ? "\n" : "") << std::flush;
        } else {
            console_.out << line << '\n' << std::flush;
        }
    }

    // The source may be told that all is well before the destination has finished its last step.
    Result<> await_destination() {
        if (!destination_) return {};
        for (;;) {
            MIG_TRY(destination_info_, destination_->call("query-migrate"), "destination");
            const std::string status = text_of(destination_info_, "status");
            if (status != "setup" && status != "active") return {};
            MIG_CHECK(util::poll_fds(nullptr, 0, kQuietPeriodMs));
        }
    }

    Result<> tell(const Json& info) {
        const Json source_timeline = timeline_of(info);
        const Json destination_timeline = timeline_of(destination_info_);
        const bool completed = text_of(info, "status") == "completed";
        const Pause pause = completed ? find_pause(steps_from_json(source_timeline),
                                                   steps_from_json(destination_timeline))
                                      : Pause{};
        if (options_.format == Format::Json) {
            Json out = info;
            out.erase("x-timeline");
            out["timeline"] = {{"source", source_timeline}, {"destination", destination_timeline}};
            if (completed) out["pause"] = pause_json(pause);
            console_.out << monitor::to_text(out, monitor::Layout::Pretty) << "\n";
        } else if (completed) {
            console_.out << summary_text(info)
                         << phases_text(steps_from_json(source_timeline), pause)
                         << pause_text(pause, console_.columns);
        }
        if (!svg_.valid() || !completed) return {};
        const std::string picture = pause_svg(pause, summary_text(info));
        return util::pwrite_all(svg_.borrow(), bytes_of(picture), 0, "--svg: write");
    }

    static Json timeline_of(const Json& info) {
        return info.contains("x-timeline") ? info["x-timeline"] : Json::array();
    }

    Result<> outcome(const Json& info) const {
        const std::string status = text_of(info, "status");
        if (status == "failed") {
            return make_error(ErrorKind::PeerFailed, "migration failed: {}",
                              text_of(info, "error-desc", "no reason given"));
        }
        if (status == "cancelled") {
            return make_error(ErrorKind::Cancelled, "the migration was cancelled");
        }
        if (text_of(destination_info_, "status", "completed") != "completed") {
            return make_error(ErrorKind::PeerFailed, "migration failed at the destination: {}",
                              text_of(destination_info_, "error-desc", "no reason given"));
        }
        return {};
    }

    const Options& options_;
    QmpLink& source_;
    Console& console_;
    std::unique_ptr<QmpLink> destination_;
    Json destination_info_ = Json::object();
    UniqueFd svg_;
    bool interrupted_ = false;
};

}  // namespace

Json value_from_text(const std::string& text) {
    if (text == "on" || text == "true") return true;
    if (text == "off" || text == "false") return false;
    uint64_t number = 0;
    const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), number);
    const std::string_view suffix(end, static_cast<size_t>(text.data() + text.size() - end));
    if (failed != std::errc()) return text;
    if (suffix.empty()) return number;
    constexpr std::string_view kSuffixes = "kmgt";
    const char letter = static_cast<char>(suffix.front() | 0x20);  // lower case
    const size_t power = kSuffixes.find(letter);
    if (suffix.size() != 1 || power == std::string_view::npos) return text;
    const uint64_t unit = uint64_t{1} << (10 * (power + 1));
    if (number > UINT64_MAX / unit) return text;
    return number * unit;
}

Result<> migrate(const Options& options, QmpLink& source, Console& console) {
    return Migrator(options, source, console).run();
}

}  // namespace ferry::ferryctl
