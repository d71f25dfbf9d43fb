// SPDX-License-Identifier: BSD-2-Clause
#include "monitor/line-editor.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "util/syscall.h"
#include "util/try.h"

namespace ferry::monitor {

namespace {

Result<std::FILE*> open_stream(int fd, const char* mode) {
    MIG_TRY(UniqueFd copy, util::duplicate(BorrowedFd(fd)));
    std::FILE* stream = ::fdopen(copy.raw(), mode);
    if (stream == nullptr) return make_errno(errno, "fdopen(terminal)");
    static_cast<void>(copy.release());
    return stream;
}

}  // namespace

Result<std::unique_ptr<LineEditor>> LineEditor::create(const util::EventFd& stop,
                                                       Completer completer) {
    std::unique_ptr<LineEditor> editor(new LineEditor(stop, std::move(completer)));
    MIG_TRY(editor->in_, open_stream(STDIN_FILENO, "r"));
    MIG_TRY(editor->out_, open_stream(STDOUT_FILENO, "w"));
    editor->edit_ = ::el_init("ferry-vmm", editor->in_, editor->out_, editor->out_);
    editor->history_ = ::history_init();
    if (editor->edit_ == nullptr || editor->history_ == nullptr) {
        return make_error(ErrorKind::Unsupported, "libedit can't use this terminal");
    }
    EditLine* const edit = editor->edit_;
    HistEvent event;
    ::history(editor->history_, &event, H_SETSIZE, kHistoryLines);
    ::history(editor->history_, &event, H_SETUNIQUE, 1);
    ::el_set(edit, EL_CLIENTDATA, editor.get());
    ::el_set(edit, EL_EDITOR, "emacs");
    ::el_set(edit, EL_PROMPT, show_prompt);
    ::el_set(edit, EL_GETCFN, read_character);
    ::el_set(edit, EL_HIST, ::history, editor->history_);
    ::el_set(edit, EL_ADDFN, "complete", "completes a word", complete);
    ::el_set(edit, EL_BIND, "^I", "complete", nullptr);
    ::el_set(edit, EL_BIND, "^R", "em-inc-search-prev", nullptr);
    return editor;
}

LineEditor::~LineEditor() {
    if (edit_ != nullptr) ::el_end(edit_);  // gives the terminal back as it was
    if (history_ != nullptr) ::history_end(history_);
    if (in_ != nullptr) std::fclose(in_);
    if (out_ != nullptr) std::fclose(out_);
}

std::optional<std::string> LineEditor::read_line(const std::string& prompt) {
    prompt_ = prompt;
    while (input_ == Input::There) {
        int length = 0;
        // Before the prompt is shown: whoever answers it at once meets an editor.
        ::el_set(edit_, EL_PREP_TERM, 1);
        const char* line = ::el_gets(edit_, &length);
        if (line == nullptr) continue;  // end-of-file was typed: nobody's wish to go
        std::string text(line, static_cast<size_t>(std::max(length, 0)));
        while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.pop_back();
        HistEvent event;
        if (!text.empty()) ::history(history_, &event, H_ENTER, text.c_str());
        return text;
    }
    return std::nullopt;
}

LineEditor& LineEditor::of(EditLine* edit) {
    void* self = nullptr;
    ::el_get(edit, EL_CLIENTDATA, &self);
    return *static_cast<LineEditor*>(self);
}

char* LineEditor::show_prompt(EditLine* edit) {
    return of(edit).prompt_.data();
}

// 1: a character; 0: there will be none.
int LineEditor::read_character(EditLine* edit, wchar_t* out) {
    LineEditor& self = of(edit);
    for (;;) {
        std::array<pollfd, 2> fds{pollfd{STDIN_FILENO, POLLIN, 0},
                                  pollfd{self.stop_.fd().raw(), POLLIN, 0}};
        const auto ready = util::poll_fds(fds.data(), fds.size(), -1);
        char byte = 0;
        const bool stopped = !ready || fds[1].revents != 0;
        const auto count = stopped ? 0 : ::read(STDIN_FILENO, &byte, 1);
        if (count < 0 && (errno == EAGAIN || errno == EINTR)) continue;
        if (count <= 0) {
            self.input_ = Input::Over;
            return 0;
        }
        // Commands are ASCII.
        if (static_cast<unsigned char>(byte) >= 0x80) continue;
        *out = static_cast<wchar_t>(byte);
        return 1;
    }
}

unsigned char LineEditor::complete(EditLine* edit, int /*key*/) {
    return of(edit).complete_line();
}

unsigned char LineEditor::complete_line() {
    const LineInfo* info = ::el_line(edit_);
    const std::string_view line(info->buffer, static_cast<size_t>(info->cursor - info->buffer));
    const size_t blank = line.rfind(' ');
    const std::string_view word = blank == std::string_view::npos ? line : line.substr(blank + 1);
    const std::vector<std::string> words = completer_(line);
    if (words.empty()) return CC_REFRESH_BEEP;
    std::string more = common_prefix(words).substr(word.size());
    if (words.size() == 1) more += ' ';
    if (!more.empty()) {
        ::el_insertstr(edit_, more.c_str());
        return CC_REFRESH;
    }
    std::fputc('\n', out_);
    for (const std::string& candidate : words) std::fprintf(out_, "%s\n", candidate.c_str());
    return CC_REDISPLAY;
}

}  // namespace ferry::monitor
