// SPDX-License-Identifier: BSD-2-Clause
#include "util/mapped-region.h"

#include <sys/mman.h>

#include "util/syscall.h"
#include "util/try.h"

namespace ferry::util {

Result<MappedRegion> MappedRegion::map(BorrowedFd fd, uint64_t offset, uint64_t size,
                                       std::string_view what) {
    void* at = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd.raw(),
                      static_cast<off_t>(offset));
    if (at == MAP_FAILED) return errno_error(fmt::format("mmap({}, {} bytes)", what, size));
    return MappedRegion(MutBytes(static_cast<std::byte*>(at), size));
}

MappedRegion::~MappedRegion() {
    if (!bytes_.empty()) ::munmap(bytes_.data(), bytes_.size());
}

}  // namespace ferry::util
