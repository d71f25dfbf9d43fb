// SPDX-License-Identifier: BSD-2-Clause
// What <linux/kvm.h> cannot say in C++. A structure of the kernel that ends in an array of open
// length holds an empty struct there, which has no size in C and one byte in C++: the structure is
// larger, its array begins elsewhere and, as a request's number contains the size, the kernel does
// not know the request. Those requests and structures are therefore defined here.
#pragma once

#include <linux/kvm.h>
#include <sys/ioctl.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace ferry::kvm::uapi {

inline constexpr int kApiVersion = 12;       // the only one since Linux 2.6.22
inline constexpr size_t kXsaveBytes = 4096;  // the fixed part of an XSAVE area

constexpr unsigned long request(unsigned direction, unsigned number, size_t size) {
    return _IOC(direction, KVMIO, number, size);
}
inline constexpr unsigned kRead = _IOC_READ, kWrite = _IOC_WRITE;
inline constexpr unsigned long kGetMsrIndexList = request(kRead | kWrite, 0x02, 4);
inline constexpr unsigned long kGetSupportedCpuid = request(kRead | kWrite, 0x05, 8);
inline constexpr unsigned long kSetGsiRouting = request(kWrite, 0x6a, 8);
inline constexpr unsigned long kGetMsrs = request(kRead | kWrite, 0x88, 8);
inline constexpr unsigned long kSetMsrs = request(kWrite, 0x89, 8);
inline constexpr unsigned long kSetSignalMask = request(kWrite, 0x8b, 4);
inline constexpr unsigned long kSetCpuid2 = request(kWrite, 0x90, 8);
inline constexpr unsigned long kGetXsave = request(kRead, 0xa4, kXsaveBytes);
inline constexpr unsigned long kSetXsave = request(kWrite, 0xa5, kXsaveBytes);
inline constexpr unsigned long kGetXsave2 = request(kRead, 0xcf, kXsaveBytes);

struct CountHeader {  // kvm_msr_list
    uint32_t count;
};
struct PaddedCountHeader {  // kvm_msrs, kvm_cpuid2, kvm_irq_routing
    uint32_t count;
    uint32_t padding_or_flags;
};
static_assert(sizeof(CountHeader) == 4 && sizeof(PaddedCountHeader) == 8);

// A header and the array that follows it, in one piece of memory.
template <typename Header, typename Entry>
class WithArray {
 public:
    explicit WithArray(size_t entries)
        : entries_(entries), words_((sizeof(Header) + entries * sizeof(Entry) + 7) / 8) {
        header().count = static_cast<uint32_t>(entries);
    }
    Header& header() { return *static_cast<Header*>(data()); }
    // All there is room for; how many are filled says the header.
    std::span<Entry> entries() {
        // NOLINTNEXTLINE(cppcoreguidelines-pro-type-reinterpret-cast): an open array
        return {reinterpret_cast<Entry*>(static_cast<std::byte*>(data()) + sizeof(Header)),
                entries_};
    }
    void* data() { return words_.data(); }

 private:
    size_t entries_;
    std::vector<uint64_t> words_;
};
using MsrList = WithArray<CountHeader, uint32_t>;
using Msrs = WithArray<PaddedCountHeader, kvm_msr_entry>;
using Cpuid = WithArray<PaddedCountHeader, kvm_cpuid_entry2>;
using IrqRouting = WithArray<PaddedCountHeader, kvm_irq_routing_entry>;
using SignalMask = WithArray<CountHeader, uint8_t>;

}  // namespace ferry::kvm::uapi
