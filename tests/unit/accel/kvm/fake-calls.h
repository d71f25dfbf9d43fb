// SPDX-License-Identifier: BSD-2-Clause
// A kernel for tests of what is asked of KVM: answers by request number, and keeps what was asked.
#pragma once

#include <cerrno>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "accel/kvm/calls.h"
#include "util/try.h"

namespace ferry::test {

class FakeCalls final : public kvm::KernelCalls {
 public:
    using Answer = std::function<Result<int>(void* argument)>;

    Result<int> ioctl(BorrowedFd, unsigned long request, void* argument,
                      std::string_view call) override {
        asked.push_back(request);
        if (fail_at && asked.size() == fail_at) return make_errno(EIO, "{}", call);
        const auto answer = answers.find(request);
        return answer == answers.end() ? Result<int>(0) : answer->second(argument);
    }

    std::map<unsigned long, Answer> answers;  // 0 for requests without one
    std::vector<unsigned long> asked;
    size_t fail_at = 0;  // which request fails, counted from 1; 0: none
};

}  // namespace ferry::test
