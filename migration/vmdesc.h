// SPDX-License-Identifier: BSD-2-Clause
// The VMDESCRIPTION: JSON behind the stream that tells tools how to cut the FULL sections into
// fields. Its grammar: docs/interop/device-state.rst, "The description"; the form is what QEMU's
// analyze-migration.py needs (docs/devel/savevm.rst).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "migration/savevm.h"

namespace ferry::migration {

// A reader's limit; the analyzer looks no further back than this either.
inline constexpr uint32_t kMaxVmDescription = 10 * 1024 * 1024;

class VmDescription {
 public:
    explicit VmDescription(const StreamIdentity& identity);
    // One FULL section, in stream order. `members`: VMStateDescription::describe().
    void add_plain(const SectionId& section, std::string_view members);
    void add_opaque(const SectionId& section, uint64_t body_bytes);
    // The text to send.
    std::string finish() &&;

 private:
    void begin_device(const SectionId& section);

    std::string json_;
    std::string separator_;
};

// Whether a tool that searches the end of the stream backwards for the last NUL and then forwards
// for '{' finds the description, and not a byte of its length field.
bool description_can_be_found(uint32_t length);

}  // namespace ferry::migration
