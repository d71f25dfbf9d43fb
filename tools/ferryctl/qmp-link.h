// SPDX-License-Identifier: BSD-2-Clause
// A conversation with a VM's QMP monitor, one request at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "monitor/json.h"
#include "util/result.h"
#include "util/unique-fd.h"

namespace ferry::ferryctl {

using monitor::Json;

// Members of an answer that need not be there, nor be what they should.
std::string text_of(const Json& object, const char* name, std::string fallback = "");
uint64_t number_of(const Json& object, const char* name);

// Blocks until the VM answers, however long that takes.
class QmpLink {
 public:
    using TryAgain = std::function<bool(const std::string& socket, unsigned attempts)>;
    // Connects and negotiates. `socket`: a path, "unix:PATH" or "tcp:HOST:PORT". Nobody there: as
    // often as `try_again` says, which may be null.
    static Result<std::unique_ptr<QmpLink>> connect(const std::string& socket,
                                                    const TryAgain& try_again);

    // What the command returned; its error as an Error{PeerFailed} with the VM's text.
    Result<Json> call(std::string_view command, const Json& arguments = Json::object());
    // The same with a whole request.
    Result<Json> request(const Json& request);

 private:
    QmpLink(UniqueFd fd, std::string name) : fd_(std::move(fd)), name_(std::move(name)) {}
    Result<> send(std::string_view text);
    Result<Json> receive();

    static constexpr size_t kMaxReplyBytes = 64 * 1024 * 1024;
    UniqueFd fd_;
    std::string name_;
    monitor::JsonFramer framer_{kMaxReplyBytes};
    std::vector<std::byte> input_;
};

}  // namespace ferry::ferryctl
