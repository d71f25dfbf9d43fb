// SPDX-License-Identifier: BSD-2-Clause
#include "monitor/transport-terminal.h"

#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>

#include "monitor/line-editor.h"
#include "util/event-fd.h"
#include "util/syscall.h"
#include "util/thread.h"
#include "util/try.h"

namespace ferry::monitor {

namespace {

// The editor's thread reads a line when it is told to, and hands it to the loop. Output is written
// between lines only: the terminal then has its ordinary modes, and a slow one slows the loop no
// more than any terminal that the process writes to.
class TerminalTransport final : public MonitorTransport {
 public:
    explicit TerminalTransport(system::MainLoop& loop) : loop_(loop) {}

    Result<> open(Completer completer) {
        MIG_TRY(stop_, util::EventFd::create());
        MIG_TRY(editor_, LineEditor::create(*stop_, std::move(completer)));
        MIG_TRY(thread_, util::start_thread("monitor/edit",
                                            [this](const std::stop_token&) { edit_lines(); }));
        return {};
    }

    ~TerminalTransport() override {
        {
            const std::lock_guard lock(mutex_);
            wanted_ = Wanted::End;
        }
        wake_.notify_one();
        if (stop_) stop_->signal();
    }
    TerminalTransport(const TerminalTransport&) = delete;
    TerminalTransport& operator=(const TerminalTransport&) = delete;

    void start(MonitorUser& user) override {
        user_ = &user;
        loop_.post([this, weak = std::weak_ptr(alive_)] {
            if (weak.expired()) return;
            user_->opened();
            set_reading(reading_);
        });
    }

    void send(std::string_view text) override {
        prompt_ += text;
        const size_t end = prompt_.rfind('\n');
        if (end == std::string::npos) return;
        write_out(std::string_view(prompt_).substr(0, end + 1));
        prompt_.erase(0, end + 1);
    }

    size_t backlog_bytes() const override { return 0; }

    void set_reading(Reading reading) override {
        reading_ = reading;
        if (reading == Reading::Off || user_ == nullptr) return;
        {
            const std::lock_guard lock(mutex_);
            if (wanted_ != Wanted::Nothing) return;
            wanted_ = Wanted::Line;
            line_prompt_ = prompt_;
        }
        prompt_.clear();
        wake_.notify_one();
    }

 private:
    enum class Wanted : uint8_t { Nothing, Line, End };

    void edit_lines() {
        for (;;) {
            std::string prompt;
            {
                std::unique_lock lock(mutex_);
                wake_.wait(lock, [this] { return wanted_ != Wanted::Nothing; });
                if (wanted_ == Wanted::End) return;
                prompt = line_prompt_;
            }
            auto line = editor_->read_line(prompt);
            const bool over = !line;
            {
                const std::lock_guard lock(mutex_);
                if (wanted_ == Wanted::Line) wanted_ = Wanted::Nothing;
            }
            loop_.post([this, weak = std::weak_ptr(alive_), line = std::move(line)] {
                if (!weak.expired()) take(line);
            });
            if (over) return;
        }
    }

    void take(const std::optional<std::string>& line) {
        if (!line) return user_->closed();
        user_->received(bytes_of(*line + "\n"), {});
    }

    static void write_out(std::string_view text) {
        ConstBytes rest = bytes_of(text);
        while (!rest.empty()) {
            const auto count = util::write_fd(BorrowedFd(STDOUT_FILENO), rest, "write(terminal)");
            if (!count) return;  // a terminal that is gone: reading finds out
            rest = rest.subspan(*count);
        }
    }

    system::MainLoop& loop_;
    MonitorUser* user_ = nullptr;
    Reading reading_ = Reading::On;
    std::string prompt_;  // what was sent since the last line end
    std::optional<util::EventFd> stop_;
    std::unique_ptr<LineEditor> editor_;  // its own thread's

    std::mutex mutex_;
    std::condition_variable wake_;
    Wanted wanted_ = Wanted::Nothing;  // mutex_
    std::string line_prompt_;          // mutex_
    std::shared_ptr<int> alive_ = std::make_shared<int>(0);
    std::jthread thread_;  // last: uses all of the above
};

}  // namespace

Result<std::unique_ptr<MonitorTransport>> make_terminal_transport(system::MainLoop& loop,
                                                                  Completer completer) {
    auto transport = std::make_unique<TerminalTransport>(loop);
    MIG_CHECK(transport->open(std::move(completer)));
    return transport;
}

}  // namespace ferry::monitor
