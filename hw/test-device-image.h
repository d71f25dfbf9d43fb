// SPDX-License-Identifier: BSD-2-Clause
// The test device's state memory, and the image of it that migrates: a header, records of extents
// and registers, a trailer with length and checksum. Format: docs/devel/test-device.rst.
#pragma once

#include <array>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "util/bitmap.h"
#include "util/bytes.h"
#include "util/mapped-region.h"
#include "util/result.h"

namespace ferry::hw {

// Of a stream of bytes, however it is cut. Any change of one 64-bit word changes it. Fast: it runs
// over every byte that migrates.
class StreamChecksum {
 public:
    void update(ConstBytes bytes);
    uint64_t value() const;
    uint64_t total_bytes() const { return total_; }

 private:
    static constexpr size_t kLanes = 4;  // independent, so that their multiplications overlap
    static constexpr size_t kBlock = kLanes * sizeof(uint64_t);
    void add_block(const std::byte* block);

    std::array<uint64_t, kLanes> lanes_ = {1, 2, 3, 4};
    std::array<std::byte, kBlock> partial_{};
    uint64_t total_ = 0;
};

// The device's state. Guarded by mutex(); what changes it calls touch().
class TestDeviceState {
 public:
    static constexpr uint64_t kChunk = 64 << 10;  // the unit in which changes are noted and sent

    // `file` empty: anonymous memory.
    static Result<TestDeviceState> create(uint64_t bytes, const std::string& file);

    uint64_t size() const { return memory_.bytes().size(); }
    MutBytes bytes() const { return memory_.bytes(); }
    uint64_t chunks() const { return changed_.size(); }
    MutBytes chunk(uint64_t index) const;
    void touch(uint64_t offset, uint64_t length);
    util::Bitmap& changed() { return changed_; }  // one bit for each chunk

    void fill(uint32_t seed);
    uint64_t digest() const;

 private:
    TestDeviceState(util::MappedRegion memory, uint64_t bytes);

    util::MappedRegion memory_;
    util::Bitmap changed_;
};

// What both sessions work on: the device's state and the lock that guards it.
struct TestDeviceMemory {
    std::mutex& mutex;
    TestDeviceState& state;
};

// Writes an image. Methods: one at a time, without the lock.
class TestDeviceSaving {
 public:
    TestDeviceSaving(TestDeviceMemory memory, uint64_t session);

    // Fills `into` as far as there is data now: the first pass, then what changed since.
    size_t read(MutBytes into);
    // The device has stopped: `registers` go behind the rest, then the trailer.
    void finish(std::vector<std::byte> registers);

    uint64_t initial_bytes() const;  // of the first pass, left
    uint64_t dirty_bytes() const;    // of changes, left
    // What read() would return until the end if the device stopped now. Also for an image that has
    // not begun: pass a new object.
    uint64_t remaining_bytes(uint64_t register_bytes) const;

 private:
    std::optional<uint64_t> next_chunk() const;
    // Makes the next record, in `into` if it fits there, else in staged_. False: none for now.
    bool produce(MutBytes& into);
    bool produce_chunk(MutBytes& into);
    MutBytes room_for(MutBytes& into, size_t size);
    uint64_t staged_left() const { return staged_.size() - staged_taken_; }
    uint64_t record_bytes(uint64_t chunk) const;

    TestDeviceMemory memory_;
    const uint64_t session_;
    StreamChecksum checksum_;
    enum class Step : uint8_t { Header, Chunks, Registers, Trailer, End };
    Step step_ = Step::Header;
    uint64_t first_pass_next_ = 0;  // chunk
    uint64_t look_from_ = 0;        // for changed chunks, so that none is starved by another
    std::optional<std::vector<std::byte>> registers_;  // the device has stopped

    std::vector<std::byte> staged_;  // a record that did not fit
    size_t staged_taken_ = 0;
    bool staged_is_initial_ = false;
};

// Reads an image and applies it at once.
class TestDeviceLoading {
 public:
    TestDeviceLoading(TestDeviceMemory memory, uint64_t register_bytes);

    // EINVAL when the image is made for another device. Everything else that is wrong is taken and
    // refused by finish(), as devices do that judge the image as a whole.
    Result<> write(ConstBytes from);
    // EINVAL unless exactly one complete image was written. Returns the registers.
    Result<std::vector<std::byte>> finish();

 private:
    // Collects `size` bytes in head_, off `from`; whether they are there.
    bool collect(ConstBytes& from, size_t size);
    Result<> take_header();
    void take_record_header();
    void take_payload(ConstBytes& from);
    void end_record();
    void refuse(std::string reason);

    TestDeviceMemory memory_;
    StreamChecksum checksum_;  // of all before the trailer

    enum class Step : uint8_t { Header, Record, Payload, End };
    Step step_ = Step::Header;
    std::vector<std::byte> head_;  // the header or record header so far
    uint32_t kind_ = 0;            // of the record
    uint64_t chunk_ = 0;           // of an extent
    MutBytes payload_;             // where the rest of the payload goes

    util::Bitmap loaded_;  // one bit for each chunk
    std::vector<std::byte> registers_;
    bool registers_loaded_ = false;
    std::array<std::byte, sizeof(uint64_t)> trailer_{};
    uint64_t position_ = 0;  // in the image
    std::optional<std::string> fault_;
};

}  // namespace ferry::hw
