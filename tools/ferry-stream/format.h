// SPDX-License-Identifier: BSD-2-Clause
// What a stream is made of beyond include/migration/stream.h, and the limits of this reader.
// The records of RAM and of VFIO devices are private to the folders that write them; a test
// compares the values here with theirs. Bytes: docs/interop/stream-format.rst.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ferry::stream_tool {

inline constexpr uint32_t kObsoleteStreamVersion = 2;
inline constexpr uint32_t kMultifdMagic = 0x11223344;

namespace ram {
inline constexpr uint32_t kVersion = 4;
// Flags in the low bits of a record's first word, an offset or a size above them.
inline constexpr uint64_t kFull = 0x001;  // obsolete
inline constexpr uint64_t kZero = 0x002;
inline constexpr uint64_t kMemSize = 0x004;
inline constexpr uint64_t kPage = 0x008;
inline constexpr uint64_t kEos = 0x010;
inline constexpr uint64_t kContinue = 0x020;
inline constexpr uint64_t kXbzrle = 0x040;
inline constexpr uint64_t kHook = 0x080;
inline constexpr uint64_t kCompressPage = 0x100;
inline constexpr uint64_t kMultifdFlush = 0x200;
}  // namespace ram

namespace vfio {
inline constexpr uint64_t kEndOfState = 0xffffffffef100001;
inline constexpr uint64_t kConfigState = 0xffffffffef100002;
inline constexpr uint64_t kSetupState = 0xffffffffef100003;
inline constexpr uint64_t kDataState = 0xffffffffef100004;
inline constexpr uint64_t kInitDataSent = 0xffffffffef100005;
inline constexpr uint64_t kConfigLoadReady = 0xffffffffef100006;
inline constexpr uint64_t kDiscard = 0xffffffffef1000f1;
inline constexpr uint64_t kConfigSize = 0xffffffffef1000f2;
}  // namespace vfio

// A feature of the lower half: DATA in PART sections after the switchover.
inline constexpr uint16_t kHelloStateParts = 64;
// Ferry's hello: the upper half of the value of the second PING.
inline constexpr uint32_t kHelloMark = 0x4645;

inline constexpr uint64_t kDefaultPageSize = 0x1000;
inline constexpr uint32_t kMinPageBits = 10;
inline constexpr uint32_t kMaxPageBits = 16;

// --- Limits. Each is far beyond what a VMM writes; all of them bound memory or time.

inline constexpr uint32_t kMaxMachineName = 255;
inline constexpr size_t kMaxConfigurationParts = 16;
inline constexpr uint32_t kMaxCapabilities = 256;
inline constexpr size_t kMaxSections = 65536;         // different sections, not their parts
inline constexpr size_t kMaxBlocks = 4096;            // RAM blocks
inline constexpr uint64_t kMaxConfigBytes = 1 << 20;  // configuration of one VFIO device
inline constexpr uint32_t kMaxDescriptionBytes = 10 * 1024 * 1024;  // as the analyzer's
inline constexpr size_t kMaxDescriptionDepth = 64;                  // brackets in brackets
inline constexpr size_t kMaxDescriptionValues = 1 << 20;
inline constexpr size_t kMaxDescriptionTries = 16;  // places at the end that look like one
inline constexpr size_t kMaxSecondLooks = 64;       // bodies read again for a better end
inline constexpr size_t kMaxProblems = 1000;        // then reading stops
inline constexpr size_t kMaxNotes = 1000;           // the others are only counted
inline constexpr size_t kMaxNodes = 1 << 19;        // printed below one element
inline constexpr size_t kMaxElementsShown = 256;    // of one array of structures
inline constexpr size_t kMaxHexBytes = 32;          // of a buffer, shown as digits
inline constexpr size_t kMaxTextBytes = 128;        // of a buffer, shown as text
inline constexpr uint64_t kMaxSpoolBytes = uint64_t{16} << 30;  // of a pipe, kept in a file
inline constexpr size_t kMaxSectionsNamed = 20;                 // in an error's text

}  // namespace ferry::stream_tool
