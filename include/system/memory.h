// SPDX-License-Identifier: BSD-2-Clause
// Guest RAM as migration sees it: named blocks of host memory, and who knows what was written.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "util/bitmap.h"
#include "util/bytes.h"
#include "util/mapped-region.h"
#include "util/registration.h"
#include "util/result.h"
#include "util/unique-fd.h"

namespace ferry::system {

inline constexpr uint64_t kPageSize = 4096;  // the guest page: unit of dirty bits and of the stream

using Gpa = uint64_t;   // guest physical address, bytes
using Iova = uint64_t;  // address as a device uses it, bytes

// One migratable piece of guest RAM. Its host memory never moves.
class RamBlock {
 public:
    // `name` as it travels in the stream (1..127 bytes). `size`: multiple of kPageSize.
    static Result<std::unique_ptr<RamBlock>> create_memfd(std::string name, uint64_t size);
    // A file shared with others; grown to `size` when shorter.
    static Result<std::unique_ptr<RamBlock>> create_file(std::string name, const std::string& path,
                                                         uint64_t size);
    // Memory that the embedder owns; must outlive the block. No fd.
    static std::unique_ptr<RamBlock> wrap(std::string name, MutBytes memory);

    const std::string& name() const { return name_; }
    uint64_t size() const { return memory_.size(); }
    uint64_t pages() const { return memory_.size() / kPageSize; }
    MutBytes host() const { return memory_; }
    BorrowedFd fd() const { return fd_.borrow(); }  // invalid for wrapped memory

    // Whether the memory may hold anything but the zeros it was created with. Set once it ran or
    // was written or loaded; a destination then clears zero pages instead of skipping them.
    bool used() const { return used_.load(std::memory_order_relaxed); }
    void mark_used() { used_.store(true, std::memory_order_relaxed); }

    // The log of writes by the VMM and by guest CPUs that it emulates. Mark after the write.
    void mark_dirty(uint64_t offset, uint64_t length);
    util::AtomicBitmap& dirty_log() { return dirty_; }

 private:
    RamBlock(std::string name, util::MappedRegion mapping, UniqueFd fd, MutBytes memory);

    std::string name_;
    util::MappedRegion mapping_;
    UniqueFd fd_;
    MutBytes memory_;
    util::AtomicBitmap dirty_;
    std::atomic<bool> used_ = false;
};

// Where a tracker reports. Addresses are guest physical; ranges outside RAM are ignored.
class DirtySink {
 public:
    virtual ~DirtySink() = default;
    virtual void mark_dirty(Gpa first, uint64_t length) = 0;
    // Bit i of `pages` is the page at first + i * page_size.
    virtual void mark_dirty_pages(Gpa first, uint64_t page_size, const util::Bitmap& pages) = 0;
    // May have been written at any time and nobody can tell: goes again in the last pass.
    virtual void mark_untracked(Gpa first, uint64_t length) = 0;
};

enum class SyncPhase : uint8_t {
    Precopy,  // the VM runs: an estimate, more will come
    Final,    // every device has stopped: the last and authoritative answer
};

// Somebody who knows what parts of guest memory were written: a VFIO container, KVM.
// Called on the migration thread, one call at a time. A sync that can't find out marks dirty (or
// untracked) instead of failing.
class DirtyTracker {
 public:
    virtual ~DirtyTracker() = default;
    virtual std::string_view name() const = 0;
    virtual Result<> dirty_log_start() = 0;
    virtual void dirty_log_stop() = 0;  // also after a failed start
    virtual void dirty_log_sync(SyncPhase phase, DirtySink& sink) = 0;
};

// What blocks and trackers log has one reader at a time: a migration, or an observer who gives way
// to one. Thread-safe.
class DirtyLogUse {
 public:
    // For an observer, until the Registration goes; nothing while somebody else has the log. When a
    // migration wants it, `give_way` is called on its thread, once: when that returns, the observer
    // has stopped what trackers it had started, and looks at the log no more.
    std::optional<util::Registration> observe(std::function<void()> give_way);
    // For a migration.
    util::Registration take();

 private:
    util::Registration claim();
    void release(uint64_t claim);

    std::mutex mutex_;  // held while an observer gives way
    uint64_t last_claim_ = 0;
    uint64_t user_ = 0;  // the claim of who has it, or 0
    std::function<void()> give_way_;
};

struct RamMapping {
    RamBlock* block;
    Gpa gpa;
    uint64_t offset;  // into the block
    uint64_t length;
};

// The RAM of one VM. Set up on the main loop thread before anything runs; then read-only and
// thread-safe, except the trackers' list (main loop thread, no migration running).
class GuestMemory {
 public:
    // The block belongs to GuestMemory; a block without mapping migrates but has no address.
    Result<RamBlock*> add_block(std::unique_ptr<RamBlock> block);
    // Makes [offset, offset + length) of the block visible at `gpa`.
    Result<> map(RamBlock& block, Gpa gpa, uint64_t offset, uint64_t length);

    const std::vector<std::unique_ptr<RamBlock>>& blocks() const { return blocks_; }
    RamBlock* find_block(std::string_view name) const;
    const std::vector<RamMapping>& mappings() const { return mappings_; }  // by address

    // The longest piece at `gpa` that is contiguous in host memory, at most `length`; empty where
    // there is no RAM.
    struct Piece {
        RamBlock* block = nullptr;
        uint64_t offset = 0;
        MutBytes bytes;
    };
    Piece lookup(Gpa gpa, uint64_t length) const;
    // Guest accesses by the VMM. InvalidArgument when any byte lies outside RAM. write() logs.
    Result<> read(Gpa gpa, MutBytes out) const;
    Result<> write(Gpa gpa, ConstBytes in);

    util::Registration add_tracker(DirtyTracker& tracker);
    const std::vector<DirtyTracker*>& trackers() const { return trackers_; }
    DirtyLogUse& dirty_log_use() { return dirty_log_use_; }

 private:
    std::vector<std::unique_ptr<RamBlock>> blocks_;
    std::vector<RamMapping> mappings_;
    std::vector<DirtyTracker*> trackers_;
    DirtyLogUse dirty_log_use_;
};

}  // namespace ferry::system
