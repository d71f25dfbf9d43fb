// SPDX-License-Identifier: BSD-2-Clause
// libedit as an object: one person's line, history and completion. One thread at a time.
#pragma once

#include <histedit.h>

#include <cstdio>
#include <memory>
#include <optional>
#include <string>

#include "monitor/transport-terminal.h"
#include "util/event-fd.h"
#include "util/result.h"

namespace ferry::monitor {

inline constexpr int kHistoryLines = 100;

class LineEditor {
 public:
    // Descriptors 0 and 1. `stop` outlives this: once it is signalled nothing is read any more.
    static Result<std::unique_ptr<LineEditor>> create(const util::EventFd& stop,
                                                      Completer completer);
    ~LineEditor();
    LineEditor(const LineEditor&) = delete;
    LineEditor& operator=(const LineEditor&) = delete;

    // Waits for the person. Without line end; nothing when stopped, or when the terminal is gone.
    std::optional<std::string> read_line(const std::string& prompt);

 private:
    LineEditor(const util::EventFd& stop, Completer completer)
        : stop_(stop), completer_(std::move(completer)) {}

    static LineEditor& of(EditLine* edit);
    static char* show_prompt(EditLine* edit);
    static int read_character(EditLine* edit, wchar_t* out);
    static unsigned char complete(EditLine* edit, int key);
    unsigned char complete_line();

    const util::EventFd& stop_;
    Completer completer_;
    std::FILE* in_ = nullptr;
    std::FILE* out_ = nullptr;
    EditLine* edit_ = nullptr;
    History* history_ = nullptr;
    std::string prompt_;
    enum class Input : bool { There, Over } input_ = Input::There;
};

}  // namespace ferry::monitor
