// SPDX-License-Identifier: BSD-2-Clause
// The line that somebody types at the far end of a byte stream, who sees what we send back: echo,
// editing, history and completion for monitors on sockets and pipes. Who listens there may be a
// terminal, or a program that expects what QEMU's monitors echo: after each key that changes the
// line, the cursor goes back to its begin and the line is written anew. No I/O. One thread.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ferry::monitor {

// What the last word of the line could become: whole words, sorted. Any thread.
using Completer = std::function<std::vector<std::string>(std::string_view line)>;

// What all of them begin with. There is at least one.
std::string common_prefix(const std::vector<std::string>& words);

inline constexpr size_t kMaxTypedBytes = 4096;
inline constexpr size_t kReadLineHistory = 64;

class ReadLine {
 public:
    // `prompt` stands before the line when it must be shown again.
    ReadLine(std::string prompt, Completer completer);

    struct Step {
        std::string echo;                 // to be sent
        std::optional<std::string> line;  // was ended by this byte
        enum class Length : bool { Fits, TooLong } length = Length::Fits;
    };
    Step type(char byte);
    // Somebody else types from now on. The history stays.
    void forget_line();

 private:
    enum class Escape : uint8_t { None, Begun, Sequence, Single };

    void plain_key(char byte, Step& step);
    void escape_key(char byte);
    void cursor_key(char final);
    void insert(char byte);
    void erase(size_t from, size_t to);
    void erase_word();
    void complete(Step& step);
    void end_line(Step& step);
    void recall(size_t entry);
    void remember();
    void show(std::string& echo);

    const std::string prompt_;
    const Completer completer_;

    std::string line_;
    size_t cursor_ = 0;
    Step::Length length_ = Step::Length::Fits;
    std::string shown_;  // what is seen behind the prompt
    size_t shown_cursor_ = 0;

    Escape escape_ = Escape::None;
    std::string parameter_;  // of an escape sequence

    std::deque<std::string> history_;  // oldest first
    size_t recalled_ = 0;              // history_.size(): none of them
    std::string unfinished_;           // what was typed before one was recalled
};

}  // namespace ferry::monitor
