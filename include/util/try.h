// SPDX-License-Identifier: BSD-2-Clause
// The only control-flow macros of the project, and make_error() for formatted texts.
//
//   MIG_TRY(auto size, device.stop_copy_bytes(), "device {}: asking its size", name);
//   MIG_CHECK(channel.write_all(parts), "sending page list");
//   MIG_CHECK(flush());                       // no context to add
#pragma once

#include <fmt/format.h>

#include "util/result.h"

namespace ferry {

// fmt's format string plus the caller's place, which a variadic function could not capture.
template <typename... Args>
struct ErrorFormat {
    template <typename S>
    consteval ErrorFormat(
        const S& text,  // NOLINT(google-explicit-constructor): stands in for the literal
        std::source_location place = std::source_location::current())
        : format(text), where(place) {}
    fmt::format_string<Args...> format;
    std::source_location where;
};

template <typename... Args>
Error make_error(ErrorKind kind, ErrorFormat<std::type_identity_t<Args>...> text, Args&&... args) {
    return Error(kind, fmt::format(text.format, std::forward<Args>(args)...), 0, text.where);
}

template <typename... Args>
Error make_errno(int errnum, ErrorFormat<std::type_identity_t<Args>...> text, Args&&... args) {
    return Error(ErrorKind::Syscall, fmt::format(text.format, std::forward<Args>(args)...), errnum,
                 text.where);
}

namespace detail {
inline Error with_context(Error error) {
    return error;
}
template <typename... Args>
Error with_context(Error error, fmt::format_string<Args...> text, Args&&... args) {
    return std::move(error).context(fmt::format(text, std::forward<Args>(args)...));
}
}  // namespace detail
}  // namespace ferry

#define MIG_CONCAT_INNER(a, b) a##b
#define MIG_CONCAT(a, b) MIG_CONCAT_INNER(a, b)

#define MIG_TRY_INNER(tmp, decl, expr, ...)                                                      \
    auto tmp = (expr);                                                                           \
    if (!tmp)                                                                                    \
        return ::ferry::detail::with_context(std::move(tmp).error() __VA_OPT__(, ) __VA_ARGS__); \
    decl = std::move(*tmp)
#define MIG_TRY(decl, expr, ...) \
    MIG_TRY_INNER(MIG_CONCAT(mig_try_, __LINE__), decl, expr __VA_OPT__(, ) __VA_ARGS__)

#define MIG_CHECK_INNER(tmp, expr, ...)                                                \
    do {                                                                               \
        if (auto tmp = (expr); !tmp)                                                   \
            return ::ferry::detail::with_context(std::move(tmp).error() __VA_OPT__(, ) \
                                                     __VA_ARGS__);                     \
    } while (false)
#define MIG_CHECK(expr, ...) \
    MIG_CHECK_INNER(MIG_CONCAT(mig_check_, __LINE__), expr __VA_OPT__(, ) __VA_ARGS__)
