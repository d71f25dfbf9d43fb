// SPDX-License-Identifier: BSD-2-Clause
// The descriptors behind a character backend, opened and made non-blocking.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "hw/char/char-backend.h"
#include "util/registration.h"
#include "util/result.h"
#include "util/unique-fd.h"

namespace ferry::chardev {

struct CharEndpoint {
    // A socket's peer may leave; it takes both directions with it.
    enum class Kind : uint8_t { Files, Socket } kind = Kind::Files;
    UniqueFd input;                        // invalid: nothing comes
    UniqueFd output;                       // invalid: nobody is there
    UniqueFd listener;                     // invalid: nobody else will come
    std::string name;                      // "unix:/run/console", for errors
    std::vector<util::Registration> undo;  // gives back what others use as well, at the end
};

// May block: see CharBackend::open.
Result<CharEndpoint> open_endpoint(const util::CharAddress& address);
// Descriptors that other processes share: flags and terminal mode are as before at the end.
Result<CharEndpoint> open_terminal(BorrowedFd input, BorrowedFd output);
// The next client, both directions of it; nothing when nobody is there after all.
Result<> accept_client(CharEndpoint& endpoint);

}  // namespace ferry::chardev
