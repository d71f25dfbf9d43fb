// SPDX-License-Identifier: BSD-2-Clause
#include "monitor/json.h"
#include "util/try.h"

namespace ferry::monitor {

namespace {

bool is_control(char c) {
    return static_cast<unsigned char>(c) < 0x20;
}
// Bytes that no UTF-8 text contains: a client sends one to get a clean start.
bool is_never_text(char c) {
    return static_cast<unsigned char>(c) >= 0xfe;
}
bool is_space(char c) {
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}
// What numbers and the names of constants consist of.
bool is_word(char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '+' ||
           c == '-' || c == '.' || c == '_';
}

}  // namespace

void JsonFramer::reset() {
    start_over(Recovery::None);
}

void JsonFramer::start_over(Recovery recovery) {
    text_.clear();
    open_.clear();
    quote_ = 0;
    escaped_ = false;
    recovery_ = recovery;
}

std::optional<Result<std::string>> JsonFramer::next(ConstBytes& input) {
    while (!input.empty()) {
        const char c = static_cast<char>(input.front());
        if (recovery_ != Recovery::None) {
            if (skip(c)) input = input.subspan(1);
            continue;
        }
        if (auto done = take(c, input)) return done;
    }
    return std::nullopt;
}

// False where `c` is the first character of something new.
bool JsonFramer::skip(char c) {
    if ((is_control(c) && c != '\t') || is_never_text(c)) {
        start_over(Recovery::None);
        return true;
    }
    if (recovery_ == Recovery::UntilEnd) return skip_rest_of_message(c);
    if (c != '{') return true;
    start_over(Recovery::None);
    return false;
}

bool JsonFramer::skip_rest_of_message(char c) {
    const bool in_words = skipped_open_ == 0 && quote_ == 0;
    if (in_words) {
        if (is_word(c)) return true;
        start_over(Recovery::None);
        return false;
    }
    if (quote_ != 0) {
        if (escaped_) {
            escaped_ = false;
        } else if (c == '\\') {
            escaped_ = true;
        } else if (c == quote_) {
            quote_ = 0;
        }
    } else if (c == '"' || c == '\'') {
        quote_ = c;
    } else if (c == '{' || c == '[') {
        ++skipped_open_;
    } else if (c == '}' || c == ']') {
        --skipped_open_;
    }
    if (skipped_open_ == 0 && quote_ == 0) start_over(Recovery::None);
    return true;
}

std::optional<Result<std::string>> JsonFramer::take(char c, ConstBytes& input) {
    if (quote_ != 0) {
        input = input.subspan(1);
        return take_in_string(c);
    }
    if (is_word(c)) {
        input = input.subspan(1);
        return append({&c, 1});
    }
    // A word outside of brackets ends where something else begins.
    if (in_word()) return complete();
    if (is_space(c)) {
        input = input.subspan(1);
        return text_.empty() ? std::nullopt : append(" ");
    }
    return take_structural(c, input);
}

std::optional<Result<std::string>> JsonFramer::take_structural(char c, ConstBytes& input) {
    input = input.subspan(1);
    switch (c) {
        case '"':
        case '\'': quote_ = c; return append("\"");
        case '{':
        case '[':
            open_.push_back(c == '{' ? '}' : ']');
            if (open_.size() > kMaxDepth) return too_much("nesting depth");
            return append({&c, 1});
        case '}':
        case ']': {
            // A bracket that closes nothing ends the message as well: the parser will refuse it.
            const bool fits = !open_.empty() && open_.back() == c;
            if (fits) open_.pop_back();
            if (!fits) open_.clear();
            if (auto full = append({&c, 1})) return full;
            if (open_.empty()) return complete();
            return std::nullopt;
        }
        case ',':
        case ':': {
            if (auto full = append({&c, 1})) return full;
            if (open_.empty()) return complete();
            return std::nullopt;
        }
        default: return stray(c);
    }
}

std::optional<Result<std::string>> JsonFramer::take_in_string(char c) {
    if (is_control(c) || is_never_text(c)) return stray(c);
    if (escaped_) {
        escaped_ = false;
        if (c == '\'') return append("'");  // needs no escape in double quotes
        const char pair[] = {'\\', c};
        return append({pair, 2});
    }
    if (c == '\\') {
        escaped_ = true;
        return std::nullopt;
    }
    if (c == quote_) {
        quote_ = 0;
        if (auto full = append("\"")) return full;
        if (open_.empty()) return complete();
        return std::nullopt;
    }
    if (c == '"') return append("\\\"");
    return append({&c, 1});
}

std::optional<Result<std::string>> JsonFramer::append(std::string_view text) {
    if (text_.size() + text.size() > max_bytes_) return too_much("token size");
    text_ += text;
    return std::nullopt;
}

Result<std::string> JsonFramer::complete() {
    std::string text = std::move(text_);
    start_over(Recovery::None);
    return text;
}

Result<std::string> JsonFramer::stray(char c) {
    // A control character or 0xff is itself a point from where to start anew.
    const bool clean = is_control(c) || is_never_text(c);
    start_over(clean ? Recovery::None : Recovery::UntilObject);
    const auto code = static_cast<unsigned char>(c);
    if (code >= 0x20 && code < 0x7f) {
        return make_error(ErrorKind::Protocol, "JSON parse error, stray '{}'", c);
    }
    return make_error(ErrorKind::Protocol, "JSON parse error, stray '\\x{:02x}'", code);
}

Result<std::string> JsonFramer::too_much(std::string_view what) {
    // Not at the next brace: what follows is the inside of a message nobody wants to obey.
    const size_t open = open_.size();
    const char quote = quote_;
    const bool over = open == 0 && quote == 0 && !in_word();
    start_over(over ? Recovery::None : Recovery::UntilEnd);
    skipped_open_ = open;
    quote_ = quote;
    return make_error(ErrorKind::LimitExceeded, "JSON {} limit exceeded", what);
}

}  // namespace ferry::monitor
