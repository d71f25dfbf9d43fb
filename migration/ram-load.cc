// SPDX-License-Identifier: BSD-2-Clause
#include "migration/ram-load.h"

#include <algorithm>
#include <string>

#include "migration/multifd-recv.h"
#include "migration/ram-records.h"
#include "migration/zero-page.h"
#include "trace-points.h"
#include "util/try.h"

namespace ferry::migration {

using system::kPageSize;

// --- RamTarget

void RamTarget::list() {
    listed_ = true;
    if (!block_->used()) written_.emplace(block_->pages());
    block_->mark_used();
}

Result<> RamTarget::check(uint64_t offset) const {
    if (offset % kPageSize == 0 && offset < block_->size()) return {};
    return make_error(ErrorKind::Protocol,
                      "offset {:#x} is no page's, or lies outside of block '{}' of {} bytes",
                      offset, block_->name(), block_->size());
}

Result<MutBytes> RamTarget::page(uint64_t offset) {
    MIG_CHECK(check(offset));
    if (written_) written_->set_range(offset / kPageSize, 1);
    return block_->host().subspan(offset, kPageSize);
}

// A page that was never touched needs no memory; one that reads as zeros need not be written.
Result<> RamTarget::clear_page(uint64_t offset) {
    MIG_CHECK(check(offset));
    if (written_ && !written_->test(offset / kPageSize)) return {};
    const MutBytes page = block_->host().subspan(offset, kPageSize);
    if (!is_zero_page(page)) std::ranges::fill(page, std::byte{0});
    return {};
}

// --- RamLoader

void RamLoader::begin(MultifdReceiver* pages, StreamOptions::Barrier barrier) {
    end();
    pages_ = pages;
    barrier_ = barrier;
    for (const auto& block : memory_.blocks()) targets_.emplace_back(*block);
}

void RamLoader::end() {
    targets_.clear();
    pages_ = nullptr;
    current_ = nullptr;
    block_list_ = BlockList::Awaited;
}

RamTarget* RamLoader::find(std::string_view name) {
    const auto found = std::ranges::find_if(
        targets_, [name](const RamTarget& target) { return target.block().name() == name; });
    return found == targets_.end() ? nullptr : &*found;
}

RamTarget* RamLoader::find_listed(std::string_view name) {
    RamTarget* const target = find(name);
    return target != nullptr && target->listed() ? target : nullptr;
}

Result<> RamLoader::load_body(LoadStream& in, SectionKind kind, uint32_t version) {
    if (version != kRamVersion) {
        return make_error(ErrorKind::Protocol, "version {} is not supported, only {}", version,
                          kRamVersion);
    }
    if (kind == SectionKind::Full) {
        return make_error(ErrorKind::Protocol, "RAM has no such section");
    }
    for (;;) {
        MIG_TRY(const uint64_t word, in.be64());
        const uint64_t flags = word & kRamFlagMask;
        const uint64_t value = word & ~kRamFlagMask;
        if (flags == kRamEos && value == 0) return end_of_body();
        if (flags == kRamMultifdFlush && value == 0 && pages_ != nullptr) {
            MIG_CHECK(pages_->barrier());
            continue;
        }
        if (flags == kRamMemSize) {
            if (kind != SectionKind::Start) {
                return make_error(ErrorKind::Protocol, "block list outside of the first section");
            }
            MIG_CHECK(load_block_list(in, value), "block list");
            continue;
        }
        const uint64_t what = flags & ~kRamContinue;
        if (what != kRamPage && what != kRamZero) {
            return make_error(ErrorKind::Protocol, "record {:#x}: flags {:#x} are not supported",
                              word, flags);
        }
        MIG_CHECK(load_page(in, flags, value), "record {:#x}", word);
    }
}

Result<> RamLoader::end_of_body() {
    if (pages_ == nullptr) return {};
    if (barrier_ == StreamOptions::Barrier::PerSection) return pages_->barrier();
    return pages_->check();
}

Result<> RamLoader::load_block_list(LoadStream& in, uint64_t total) {
    if (block_list_ == BlockList::Received) return make_error(ErrorKind::Protocol, "comes twice");
    block_list_ = BlockList::Received;
    uint64_t left = total;
    while (left != 0) {
        MIG_TRY(const std::string name, in.str8());
        MIG_TRY(const uint64_t length, in.be64(), "block '{}'", name);
        RamTarget* const target = find(name);
        if (target == nullptr) {
            return make_error(ErrorKind::Protocol, "block '{}' does not exist here", name);
        }
        if (target->listed()) {
            return make_error(ErrorKind::Protocol, "block '{}' is listed twice", name);
        }
        if (length != target->block().size()) {
            return make_error(ErrorKind::Protocol,
                              "block '{}' has {} bytes at the source, {} bytes here", name, length,
                              target->block().size());
        }
        if (length > left) {
            return make_error(ErrorKind::Protocol, "block '{}' exceeds the announced total of {}",
                              name, total);
        }
        target->list();
        left -= length;
    }
    for (const RamTarget& target : targets_) {
        if (!target.listed()) {
            return make_error(ErrorKind::Protocol, "block '{}' of {} bytes exists here only",
                              target.block().name(), target.block().size());
        }
    }
    if (pages_ != nullptr) pages_->open(*this);
    trace::ram_load_blocks(trace_, targets_.size(), total);
    return {};
}

Result<> RamLoader::select_block(LoadStream& in, uint64_t flags) {
    if ((flags & kRamContinue) != 0) {
        if (current_ == nullptr) return make_error(ErrorKind::Protocol, "no block to continue");
        return {};
    }
    MIG_TRY(const std::string name, in.str8());
    current_ = find_listed(name);
    if (current_ == nullptr) {
        return make_error(ErrorKind::Protocol, "block '{}' was not announced", name);
    }
    return {};
}

Result<> RamLoader::load_page(LoadStream& in, uint64_t flags, uint64_t offset) {
    MIG_CHECK(select_block(in, flags));
    const std::string& block = current_->block().name();
    if ((flags & kRamPage) != 0) {
        MIG_TRY(const MutBytes page, current_->page(offset));
        MIG_CHECK(in.bytes(page), "block '{}'", block);
        return {};
    }
    MIG_TRY(const uint8_t fill, in.u8());
    if (fill != 0) {
        return make_error(ErrorKind::Protocol, "block '{}': page filled with {:#x}", block, fill);
    }
    return current_->clear_page(offset);
}

Result<> RamLoader::validate() const {
    if (block_list_ == BlockList::Awaited && !targets_.empty()) {
        return make_error(ErrorKind::Protocol,
                          "the stream holds no RAM, but block '{}' exists here",
                          targets_.front().block().name());
    }
    return {};
}

}  // namespace ferry::migration
