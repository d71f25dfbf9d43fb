// SPDX-License-Identifier: BSD-2-Clause
#include "util/result.h"

#include <cstring>

namespace ferry {

std::string_view to_string(ErrorKind kind) {
    switch (kind) {
        case ErrorKind::Syscall: return "syscall";
        case ErrorKind::Unsupported: return "unsupported";
        case ErrorKind::InvalidArgument: return "invalid-argument";
        case ErrorKind::InvalidState: return "invalid-state";
        case ErrorKind::Protocol: return "protocol";
        case ErrorKind::PeerClosed: return "peer-closed";
        case ErrorKind::PeerFailed: return "peer-failed";
        case ErrorKind::LimitExceeded: return "limit-exceeded";
        case ErrorKind::Cancelled: return "cancelled";
        case ErrorKind::Internal: return "internal";
    }
    return "internal";
}

Error Error::context(std::string outer) && {
    contexts_.push_back(std::move(outer));
    return std::move(*this);
}

Error Error::attach(Error also) && {
    attached_.push_back(std::move(also));
    return std::move(*this);
}

void Error::attach_in_place(Error also) {
    attached_.push_back(std::move(also));
}

std::string Error::message() const {
    std::string out;
    for (auto it = contexts_.rbegin(); it != contexts_.rend(); ++it) {
        out += *it;
        out += ": ";
    }
    out += text_;
    if (errnum_ != 0) {
        char buffer[128];
        out += ": ";
        out += strerror_r(errnum_, buffer, sizeof(buffer));
    }
    if (!attached_.empty()) {
        out += " (then: ";
        for (size_t i = 0; i < attached_.size(); ++i) {
            if (i != 0) out += "; ";
            out += attached_[i].message();
        }
        out += ")";
    }
    return out;
}

}  // namespace ferry
