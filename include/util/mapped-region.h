// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <cstdint>
#include <string_view>
#include <utility>

#include "util/bytes.h"
#include "util/result.h"
#include "util/unique-fd.h"

namespace ferry::util {

// A shared mapping of a file, unmapped when it goes.
class MappedRegion {
 public:
    MappedRegion() = default;
    // MAP_SHARED, read + write. `what` names the object in errors.
    static Result<MappedRegion> map(BorrowedFd fd, uint64_t offset, uint64_t size,
                                    std::string_view what);
    MappedRegion(MappedRegion&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}
    MappedRegion& operator=(MappedRegion&& other) noexcept {
        std::swap(bytes_, other.bytes_);
        return *this;
    }
    ~MappedRegion();

    MutBytes bytes() const { return bytes_; }

 private:
    explicit MappedRegion(MutBytes bytes) : bytes_(bytes) {}
    MutBytes bytes_;
};

}  // namespace ferry::util
