// SPDX-License-Identifier: BSD-2-Clause
// JSON as QMP speaks it: cutting a byte stream into values, parsing and printing them.
// The value type and the grammar are nlohmann's; added are the limits, QMP's leniencies (single
// quotes, no separator between messages, resynchronising) and its spelling of output.
#pragma once

#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "util/bytes.h"
#include "util/result.h"

namespace ferry::monitor {

using Json = nlohmann::json;

inline constexpr size_t kMaxDepth = 1024;                // brackets in brackets
inline constexpr size_t kMaxRequestBytes = 1024 * 1024;  // of one message

// Finds where messages end. One thread at a time.
class JsonFramer {
 public:
    explicit JsonFramer(size_t max_bytes = kMaxRequestBytes) : max_bytes_(max_bytes) {}

    // Takes bytes from the front of `input` until a message is complete and returns its text, all
    // strings in double quotes; or the Error to answer it with. Without value: `input` is used up
    // and more is needed. What is returned has balanced brackets, but may still be bad JSON.
    std::optional<Result<std::string>> next(ConstBytes& input);
    // A new stream begins.
    void reset();

 private:
    // What ends the skipping after an error: a control character or 0xff always does, and an object
    // that begins, or the end of the message that was too large.
    enum class Recovery : uint8_t { None, UntilObject, UntilEnd };

    bool skip(char c);
    bool skip_rest_of_message(char c);
    std::optional<Result<std::string>> take(char c, ConstBytes& input);
    std::optional<Result<std::string>> take_in_string(char c);
    std::optional<Result<std::string>> take_structural(char c, ConstBytes& input);
    std::optional<Result<std::string>> append(std::string_view text);
    Result<std::string> complete();
    Result<std::string> stray(char c);
    Result<std::string> too_much(std::string_view what);
    bool in_word() const { return open_.empty() && !text_.empty() && quote_ == 0; }
    void start_over(Recovery recovery);

    size_t max_bytes_;
    std::string text_;  // of the message so far
    std::string open_;  // the brackets that will close what is open
    char quote_ = 0;    // the quote that will close the string, 0 outside of strings
    bool escaped_ = false;
    Recovery recovery_ = Recovery::None;
    size_t skipped_open_ = 0;  // UntilEnd: brackets that are still open
};

// Errors read "JSON parse error, ...". Refuses duplicate keys and more than kMaxDepth brackets.
Result<Json> parse_json(std::string_view text);

enum class Layout : uint8_t { Line, Pretty };
// With ": " and ", " between things, without a line end (Pretty: LF and four spaces inside).
std::string to_text(const Json& value, Layout layout = Layout::Line);

}  // namespace ferry::monitor
