// SPDX-License-Identifier: BSD-2-Clause
// The configuration space of a function: its bytes, what the guest may change in them, and what
// two functions must have in common for a guest to move from one to the other.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "util/bytes.h"
#include "util/result.h"

namespace ferry::pci {

inline constexpr size_t kConfigBytes = 256;
inline constexpr size_t kExpressConfigBytes = 4096;

// One thread at a time. Offsets are the caller's duty, except where a method returns a Result.
class ConfigSpace {
 public:
    // 256 or 4096 bytes.
    explicit ConfigSpace(std::vector<std::byte> image);

    size_t size() const { return image_.size(); }
    ConstBytes image() const { return image_; }
    uint8_t u8(size_t offset) const { return static_cast<uint8_t>(image_[offset]); }
    uint16_t u16(size_t offset) const;
    uint32_t u32(size_t offset) const;
    void set_u8(size_t offset, uint8_t value) { image_[offset] = std::byte{value}; }
    void set_u16(size_t offset, uint16_t value);
    void set_u32(size_t offset, uint32_t value);

    // Bits the guest can write, clears by writing 1, and that must be equal on both sides of a
    // migration. None at first.
    MutBytes writable() { return writable_; }
    MutBytes write_one_clears() { return write_one_clears_; }
    MutBytes must_match() { return must_match_; }
    void guest_write(size_t offset, ConstBytes value);

    // Takes a migrated image, or says where it differs from this function's in a bit that must
    // match and that the guest cannot have changed. The image has this size.
    Result<> load(ConstBytes image);

 private:
    std::vector<std::byte> image_;
    std::vector<std::byte> writable_;
    std::vector<std::byte> write_one_clears_;
    std::vector<std::byte> must_match_;
};

struct PciCapability {
    uint16_t id;
    uint16_t offset;
    uint16_t length;  // up to the next one or the end of the space: they do not tell their own
};

// The lists are the device's and not trusted: Protocol where one loops or leaves its space.
Result<std::vector<PciCapability>> walk_capabilities(ConstBytes config);
Result<std::vector<PciCapability>> walk_express_capabilities(ConstBytes config);

}  // namespace ferry::pci
