// SPDX-License-Identifier: BSD-2-Clause
// Error and Result: how every function of Ferry that can fail says so. See docs/devel/errors.rst.
#pragma once

#include <cstdint>
#include <expected>
#include <source_location>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ferry {

// What the caller may do about it, not what happened (the text says that).
enum class ErrorKind : uint8_t {
    Syscall,          // the kernel or a driver refused; errno() says how
    Unsupported,      // the other side cannot do this at all; do not retry
    InvalidArgument,  // the request is wrong
    InvalidState,     // right request, wrong moment
    Protocol,         // bytes from a peer, device or file that break the format
    PeerClosed,       // the stream ended early
    PeerFailed,       // the peer is silent or said that it failed
    LimitExceeded,    // a named limit
    Cancelled,        // somebody asked to stop
    Internal,         // a bug of ours
};

std::string_view to_string(ErrorKind kind);

// kind + errno + text + the chain of contexts, outermost first when printed.
class [[nodiscard]] Error {
 public:
    Error(ErrorKind kind, std::string text, int errnum = 0,
          std::source_location where = std::source_location::current())
        : kind_(kind), errnum_(errnum), text_(std::move(text)), where_(where) {}

    ErrorKind kind() const { return kind_; }
    int errnum() const { return errnum_; }  // positive errno, or 0
    const std::string& text() const { return text_; }
    const std::source_location& where() const { return where_; }

    // Adds an outer context ("device 0000:3b:00.2: entering STOP_COPY").
    Error context(std::string outer) &&;
    // A second failure met while unwinding from this one: kept, never replacing it.
    Error attach(Error also) &&;
    void attach_in_place(Error also);

    // "outer: inner: text: strerror(errno) (then: attached; attached)", one line.
    std::string message() const;

 private:
    ErrorKind kind_;
    int errnum_;
    std::string text_;
    std::source_location where_;
    std::vector<std::string> contexts_;  // innermost first
    std::vector<Error> attached_;
};

// std::expected that may not be ignored.
template <typename T = void>
class [[nodiscard]] Result : public std::expected<T, Error> {
 public:
    using std::expected<T, Error>::expected;
    Result(Error error)
        : std::expected<T, Error>(std::unexpect, std::move(error)) {
    }  // NOLINT(google-explicit-constructor): a failing function returns its Error
};

template <>
class [[nodiscard]] Result<void> : public std::expected<void, Error> {
 public:
    using std::expected<void, Error>::expected;
    Result() = default;
    Result(Error error)
        : std::expected<void, Error>(std::unexpect, std::move(error)) {
    }  // NOLINT(google-explicit-constructor): as above
};

}  // namespace ferry
