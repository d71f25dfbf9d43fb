// SPDX-License-Identifier: BSD-2-Clause
#include "monitor/read-line.h"

#include <algorithm>
#include <utility>

namespace ferry::monitor {

namespace {

constexpr size_t kScreenColumns = 80;
constexpr size_t kColumnGap = 2;
constexpr size_t kNarrowestColumn = 10;
constexpr size_t kLongestParameter = 8;

constexpr char control(char letter) {
    return static_cast<char>(letter - '@');
}

void repeat(std::string& out, std::string_view text, size_t times) {
    for (size_t i = 0; i < times; ++i) out += text;
}

std::string in_columns(const std::vector<std::string>& words) {
    const size_t longest = std::ranges::max(words, {}, &std::string::size).size();
    const size_t width = std::max(longest + kColumnGap, kNarrowestColumn);
    const size_t columns = std::max<size_t>(kScreenColumns / width, 1);
    std::string out;
    for (size_t i = 0; i < words.size(); ++i) {
        out += words[i];
        out.append(width - words[i].size(), ' ');
        if ((i + 1) % columns == 0 || i + 1 == words.size()) out += "\r\n";
    }
    return out;
}

}  // namespace

std::string common_prefix(const std::vector<std::string>& words) {
    std::string prefix = words.front();
    for (const std::string& word : words) {
        const auto [end, other] = std::ranges::mismatch(prefix, word);
        prefix.erase(end, prefix.end());
    }
    return prefix;
}

ReadLine::ReadLine(std::string prompt, Completer completer)
    : prompt_(std::move(prompt)), completer_(std::move(completer)) {}

void ReadLine::forget_line() {
    line_.clear();
    cursor_ = 0;
    length_ = Step::Length::Fits;
    shown_.clear();
    shown_cursor_ = 0;
    escape_ = Escape::None;
    recalled_ = history_.size();
    unfinished_.clear();
}

ReadLine::Step ReadLine::type(char byte) {
    Step step;
    // Control characters are in no sequence: Enter ends the line also behind half of one.
    if (escape_ == Escape::None || static_cast<unsigned char>(byte) < ' ') {
        escape_ = Escape::None;
        plain_key(byte, step);
    } else {
        escape_key(byte);
    }
    show(step.echo);
    return step;
}

void ReadLine::plain_key(char byte, Step& step) {
    switch (byte) {
        case '\r':
        case '\n': return end_line(step);
        case '\t': return complete(step);
        case '\x1b': escape_ = Escape::Begun; return;
        case '\b':
        case '\x7f':
            if (cursor_ > 0) erase(cursor_ - 1, cursor_);
            return;
        case control('A'): return cursor_key('H');
        case control('B'): return cursor_key('D');
        case control('D'): return erase(cursor_, cursor_ + 1);
        case control('E'): return cursor_key('F');
        case control('F'): return cursor_key('C');
        case control('K'): return erase(cursor_, line_.size());
        case control('L'):
            step.echo += "\x1b[2J\x1b[1;1H" + prompt_;
            shown_.clear();
            shown_cursor_ = 0;
            return;
        case control('N'): return cursor_key('B');
        case control('P'): return cursor_key('A');
        case control('U'): return erase(0, cursor_);
        case control('W'): return erase_word();
        default: break;
    }
    // Bytes of UTF-8 go in as they are.
    if (static_cast<unsigned char>(byte) >= ' ') insert(byte);
}

// ESC [ parameter final, ESC O final. What has no meaning here is passed over whole.
void ReadLine::escape_key(char byte) {
    switch (escape_) {
        case Escape::None: return;
        case Escape::Begun:
            parameter_.clear();
            escape_ = byte == '[' ? Escape::Sequence : byte == 'O' ? Escape::Single : Escape::None;
            return;
        case Escape::Sequence:
            if (byte < '@') {
                if (parameter_.size() < kLongestParameter) parameter_ += byte;
                return;
            }
            escape_ = Escape::None;
            return cursor_key(byte);
        case Escape::Single: escape_ = Escape::None; return cursor_key(byte);
    }
}

void ReadLine::cursor_key(char final) {
    switch (final) {
        case 'A':
            if (recalled_ > 0) recall(recalled_ - 1);
            return;
        case 'B':
            if (recalled_ < history_.size()) recall(recalled_ + 1);
            return;
        case 'C': cursor_ = std::min(cursor_ + 1, line_.size()); return;
        case 'D': cursor_ -= std::min<size_t>(cursor_, 1); return;
        case 'H': cursor_ = 0; return;
        case 'F': cursor_ = line_.size(); return;
        case '~':
            if (parameter_ == "1" || parameter_ == "7") cursor_ = 0;
            if (parameter_ == "4" || parameter_ == "8") cursor_ = line_.size();
            if (parameter_ == "3") erase(cursor_, cursor_ + 1);
            return;
        default: return;
    }
}

void ReadLine::insert(char byte) {
    if (line_.size() >= kMaxTypedBytes) {
        length_ = Step::Length::TooLong;
        return;
    }
    line_.insert(cursor_, 1, byte);
    ++cursor_;
}

void ReadLine::erase(size_t from, size_t to) {
    line_.erase(from, std::min(to, line_.size()) - from);
    cursor_ = from;
}

void ReadLine::erase_word() {
    size_t from = cursor_;
    while (from > 0 && line_[from - 1] == ' ') --from;
    while (from > 0 && line_[from - 1] != ' ') --from;
    erase(from, cursor_);
}

void ReadLine::complete(Step& step) {
    const std::string_view before = std::string_view(line_).substr(0, cursor_);
    const std::vector<std::string> words = completer_(before);
    if (words.empty()) return;
    const size_t blank = before.rfind(' ');
    const size_t begun = before.size() - (blank == std::string_view::npos ? 0 : blank + 1);
    std::string more = common_prefix(words).substr(begun);
    if (words.size() == 1) more += ' ';
    for (const char byte : more) insert(byte);
    if (words.size() == 1) return;
    step.echo += "\r\n" + in_columns(words) + prompt_;
    shown_.clear();
    shown_cursor_ = 0;
}

void ReadLine::end_line(Step& step) {
    remember();
    step.echo += "\r\n";
    step.length = length_;
    step.line = std::exchange(line_, {});
    forget_line();
}

void ReadLine::recall(size_t entry) {
    if (recalled_ == history_.size()) unfinished_ = line_;
    recalled_ = entry;
    line_ = entry == history_.size() ? unfinished_ : history_[entry];
    cursor_ = line_.size();
}

// A line that was there before moves to the end.
void ReadLine::remember() {
    if (line_.empty()) return;
    std::erase(history_, line_);
    history_.push_back(line_);
    if (history_.size() > kReadLineHistory) history_.pop_front();
}

void ReadLine::show(std::string& echo) {
    if (shown_ != line_) {
        repeat(echo, "\x1b[D", shown_cursor_);
        echo += line_;
        echo += "\x1b[K";
        shown_ = line_;
        shown_cursor_ = line_.size();
    }
    if (cursor_ > shown_cursor_) repeat(echo, "\x1b[C", cursor_ - shown_cursor_);
    if (cursor_ < shown_cursor_) repeat(echo, "\x1b[D", shown_cursor_ - cursor_);
    shown_cursor_ = cursor_;
}

}  // namespace ferry::monitor
