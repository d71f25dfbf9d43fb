// SPDX-License-Identifier: BSD-2-Clause
// A kernel's file (-kernel) taken apart: an ELF image with a PVH note or a multiboot header, or a
// flat one with a multiboot header that has addresses. The file is not trusted.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "system/vmm/boot-image.h"
#include "util/bytes.h"
#include "util/result.h"

namespace ferry::vmm {

struct KernelLayout {
    std::vector<BootSegment> segments;
    uint32_t entry = 0;
    BootProtocol protocol = BootProtocol::Multiboot;
};
Result<KernelLayout> parse_kernel(ConstBytes file);

}  // namespace ferry::vmm
